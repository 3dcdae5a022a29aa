#!/bin/sh
# Fills /volume with about $1 kB of files such as executions leave, by turns
# text and noise, cut out of the pools .text and .noise. Runs in the helper
# image.
set -eu
cd /volume
left=$1
n=0
text=0
noise=0
rm -rf binaryData/workflows/big*
while [ "$left" -gt 0 ]; do
  n=$((n + 1))
  # Sizes from 4 kB to 4 MB, most of them small.
  case $((n % 8)) in
    0) size=$((1000 + n * 7919 % 3000)) ;;
    1 | 2) size=$((200 + n * 7919 % 800)) ;;
    *) size=$((4 + n * 7919 % 200)) ;;
  esac
  [ $size -le "$left" ] || size=$left
  # As much of one as of the other, whatever the sizes.
  if [ $text -le $noise ]; then
    pool=text
    text=$((text + size))
  else
    pool=noise
    noise=$((noise + size))
  fi
  dir=binaryData/workflows/big$((n % 50))/executions/$((10000000 + n))/binary_data
  mkdir -p "$dir"
  dd if=".$pool" of="$dir/file-$n" bs=1000 skip=$((n * 104729 % 11000)) count="$size" 2>/dev/null
  printf '{"fileName":"file %s","mimeType":"application/octet-stream","fileSize":%s}' $n $((size * 1000)) >"$dir/file-$n.metadata"
  left=$((left - size))
done
rm -f .text .noise
chown -R 1000:1000 binaryData
