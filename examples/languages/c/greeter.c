/* Answers /hello with a greeting from its config, and marks every response. Built by
 *   clang --target=wasm32 -O2 -fno-builtin -nostdlib -I../../../sdk/c -Wl,--no-entry -o greeter.wasm greeter.c */
#include "castling.h"

CASTLING_MANIFEST("{\"abi\":1,\"name\":\"greeter-c\",\"version\":\"0.1.0\",\"sdk\":\"c\",\"hooks\":[\"content\",\"response_headers\"]}");

/* Text of a literal and its length, for a call that takes both. */
#define TEXT(literal) (literal), sizeof(literal) - 1

static char config[1024];
static const char *greeting;
static uint32_t greeting_len;

static int same(const char *a, const char *b, uint32_t len) {
    for (uint32_t i = 0; i < len; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

/* Config of the plugin: {"greeting":"text"}. The gateway has made it of TOML, so that nothing else can stand there but other keys. */
CASTLING_CONFIGURE {
    static const char key[] = "\"greeting\":\"";
    const uint32_t key_len = sizeof key - 1;
    int32_t len = castling_config_get(config, sizeof config);
    if (len < 0 || (uint32_t)len > sizeof config) {
        castling_fail(TEXT("the config is longer than 1024 bytes"));
        return CASTLING_ACTION_FAILED;
    }
    for (uint32_t at = 0; at + key_len < (uint32_t)len; at++) {
        if (!same(config + at, key, key_len))
            continue;
        greeting = config + at + key_len;
        while (greeting + greeting_len < config + len && greeting[greeting_len] != '"')
            greeting_len++;
        return CASTLING_ACTION_CONTINUE;
    }
    castling_fail(TEXT("greeting is missing"));
    return CASTLING_ACTION_FAILED;
}

CASTLING_HOOK(content) {
    char path[64];
    int32_t len = castling_property_get(CASTLING_PROPERTY_PATH, path, sizeof path);
    if (len != 6 || !same(path, "/hello", 6))
        return CASTLING_ACTION_CONTINUE;
    castling_answer(200, 0, 0, greeting, greeting_len);
    return CASTLING_ACTION_ANSWER;
}

CASTLING_HOOK(response_headers) {
    castling_header_set(CASTLING_HEADER_MAP_RESPONSE, TEXT("x-greeter"), TEXT("c"));
    return CASTLING_ACTION_CONTINUE;
}
