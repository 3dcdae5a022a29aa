/* A module of Redis with a type of its own, for tests: COUNTER.SET KEY NUMBER, COUNTER.GET KEY. It takes the argument
   "strict" and no other, so that a server that is given the module without it does not start. */
#include <string.h>

typedef long long Number;
static int (*find)(const char *, void *);
static int (*init)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, int (*)(void *, void **, int), const char *, int, int, int);
static void *(*create_type)(void *, const char *, int, void *);
static void *(*open_key)(void *, void *, int);
static void (*close_key)(void *);
static int (*set_value)(void *, void *, void *);
static void *(*value_of)(void *);
static int (*to_number)(void *, Number *);
static int (*reply)(void *, Number);
static const char *(*text_of)(void *, unsigned long *);
static void *(*allocate)(unsigned long);
static void (*release)(void *);
static void (*save_number)(void *, Number);
static Number (*load_number)(void *);
static void *type;

static void *load(void *file, int version) {
  Number *counter = allocate(sizeof *counter);
  (void)version;
  *counter = load_number(file);
  return counter;
}

static void save(void *file, void *value) { save_number(file, *(Number *)value); }

static void rewrite(void *file, void *key, void *value) { (void)file, (void)key, (void)value; }

static int set(void *context, void **argv, int argc) {
  Number *counter = allocate(sizeof *counter);
  void *key;
  if (argc != 3 || to_number(argv[2], counter)) return 1;
  key = open_key(context, argv[1], 3);
  set_value(key, type, counter);
  close_key(key);
  return reply(context, 1);
}

static int get(void *context, void **argv, int argc) {
  Number *counter;
  void *key;
  if (argc != 2) return 1;
  key = open_key(context, argv[1], 1);
  counter = key ? value_of(key) : 0;
  reply(context, counter ? *counter : -1);
  if (key) close_key(key);
  return 0;
}

int RedisModule_OnLoad(void *context, void **argv, int argc) {
  struct {
    unsigned long version;
    void *load, *save, *rewrite, *usage, *digest, *release;
  } methods = {1, load, save, rewrite, 0, 0, 0};
  find = (int (*)(const char *, void *))((void **)context)[0];
  find("RedisModule_SetModuleAttribs", &init);
  find("RedisModule_CreateCommand", &create_command);
  find("RedisModule_CreateDataType", &create_type);
  find("RedisModule_OpenKey", &open_key);
  find("RedisModule_CloseKey", &close_key);
  find("RedisModule_ModuleTypeSetValue", &set_value);
  find("RedisModule_ModuleTypeGetValue", &value_of);
  find("RedisModule_StringToLongLong", &to_number);
  find("RedisModule_ReplyWithLongLong", &reply);
  find("RedisModule_StringPtrLen", &text_of);
  find("RedisModule_Alloc", &allocate);
  find("RedisModule_Free", &release);
  find("RedisModule_SaveSigned", &save_number);
  find("RedisModule_LoadSigned", &load_number);
  methods.release = release;
  init(context, "n8nbt", 1, 1);
  if (argc != 1 || strcmp(text_of(argv[0], 0), "strict")) return 1;
  type = create_type(context, "n8nbtcntr", 0, &methods);
  return !type || create_command(context, "counter.set", set, "write", 1, 1, 1) ||
         create_command(context, "counter.get", get, "readonly", 1, 1, 1);
}
