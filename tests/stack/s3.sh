#!/usr/bin/env bash
# Serves S3 on loopback, by moto, which is fetched once with the host's own pip and kept in the cache directory.
#
# s3.sh fetch        only fetches it
# s3.sh serve PORT   serves until it is killed; prints nothing
# s3.sh setup PORT   makes a bucket n8n-backups with versions and object lock, and prints an access key and its secret
#                    that may list, read and write there, but neither delete nor make buckets
# s3.sh versions PORT, s3.sh buckets PORT   what is there: a key and a version each, or names
set -euo pipefail

MOTO_VERSION=5.2.5
HOME_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/n8n-backup-test/moto-$MOTO_VERSION
export PYTHONPATH=$HOME_DIR PYTHONDONTWRITEBYTECODE=1

unable() {
  printf 's3: %s\n' "$*" >&2
  exit 2
}

fetch() {
  [ ! -e "$HOME_DIR/complete" ] || return 0
  command -v python3 >/dev/null || unable 'no S3 server: this host has no python3 to run moto with'
  mkdir -p -- "${HOME_DIR%/*}"
  exec 9>"$HOME_DIR.lock"
  ! command -v flock >/dev/null || flock 9
  [ ! -e "$HOME_DIR/complete" ] || return 0
  rm -rf -- "$HOME_DIR"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$HOME_DIR" "moto[s3,iam,server]==$MOTO_VERSION" >&2 ||
    unable "no S3 server: pip cannot fetch moto $MOTO_VERSION"
  : >"$HOME_DIR/complete"
}

# Runs a program with clients of S3 and IAM, as the one who may do all.
as_root() {
  PORT=$1 python3 - <<PYTHON
import json, os, urllib.request
import boto3
url = f"http://127.0.0.1:{os.environ['PORT']}"
def client(name):
    return boto3.client(name, endpoint_url=url, region_name="us-east-1", aws_access_key_id="root", aws_secret_access_key="root")
s3, iam = client("s3"), client("iam")
def count(number):
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", data=str(number).encode(), headers={"Content-Type": "text/plain"})).read()
count(1000000)
$2
count(0)
PYTHON
}

case ${1:-} in
  fetch) fetch ;;
  serve)
    fetch
    # Whoever asks may do everything until a key is made.
    INITIAL_NO_AUTH_ACTION_COUNT=1000000 exec python3 -m moto.server -H 127.0.0.1 -p "$2" >/dev/null 2>&1
    ;;
  setup)
    as_root "$2" '
s3.create_bucket(Bucket="n8n-backups", ObjectLockEnabledForBucket=True)
s3.put_object_lock_configuration(Bucket="n8n-backups", ObjectLockConfiguration={
    "ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 7}}})
iam.create_user(UserName="host")
iam.put_user_policy(UserName="host", PolicyName="host", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"], "Resource": "*"}]}))
key = iam.create_access_key(UserName="host")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])'
    ;;
  versions)
    as_root "$2" '
answer = s3.list_object_versions(Bucket="n8n-backups")
for each in answer.get("Versions", []) + answer.get("DeleteMarkers", []):
    print(each["Key"], each["VersionId"], "version" if "ETag" in each else "marker")'
    ;;
  buckets) as_root "$2" 'print(*(each["Name"] for each in s3.list_buckets()["Buckets"]))' ;;
  *) unable 'fetch, serve PORT, setup PORT, versions PORT or buckets PORT' ;;
esac
