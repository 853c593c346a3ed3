// Answers /hello with a greeting from its config, and marks every response. Built by
//   asc greeter.ts -O --runtime stub --exportStart _initialize --use abort=greeter/aborted -o greeter.wasm
//   node manifest.mjs greeter.wasm

@external("castling", "answer")
declare function answer(status: u32, headers: usize, headersLen: u32, body: usize, bodyLen: u32): i32;
@external("castling", "config_get")
declare function configGet(out: usize, cap: u32): i32;
@external("castling", "fail")
declare function fail(ptr: usize, len: u32): void;
@external("castling", "header_set")
declare function headerSet(map: u32, name: usize, nameLen: u32, ptr: usize, len: u32): i32;
@external("castling", "panicked")
declare function panicked(ptr: usize, len: u32): void;
@external("castling", "property_get")
declare function propertyGet(property: u32, out: usize, cap: u32): i32;

// Numbers of sdk/abi/abi.txt.
const ACTION_FAILED: i32 = -1;
const ACTION_CONTINUE: i32 = 0;
const ACTION_ANSWER: i32 = 1;
const PROPERTY_PATH: u32 = 1;
const HEADER_MAP_RESPONSE: u32 = 1;

// Texts cross the boundary as UTF-8. Made once: with the runtime "stub" nothing is ever freed.
const NAME = String.UTF8.encode("x-greeter");
const VALUE = String.UTF8.encode("assemblyscript");
const HELLO = String.UTF8.encode("/hello");
const ROOM = new ArrayBuffer(1024);
let greeting = new ArrayBuffer(0);

function at(text: ArrayBuffer): usize {
  return changetype<usize>(text);
}

function failed(text: string): i32 {
  const said = String.UTF8.encode(text);
  fail(at(said), said.byteLength);
  return ACTION_FAILED;
}

// Config of the plugin: {"greeting":"text"}.
export function castling_configure(): i32 {
  const len = configGet(at(ROOM), ROOM.byteLength);
  if (len < 0 || len > ROOM.byteLength) return failed("the config is longer than 1024 bytes");
  const config = String.UTF8.decode(ROOM.slice(0, len));
  const key = '"greeting":"';
  const start = config.indexOf(key);
  if (start < 0) return failed("greeting is missing");
  const end = config.indexOf('"', start + key.length);
  greeting = String.UTF8.encode(config.substring(start + key.length, end));
  return ACTION_CONTINUE;
}

export function castling_hook_content(a: u32, b: u32, c: u32): i32 {
  const len = propertyGet(PROPERTY_PATH, at(ROOM), ROOM.byteLength);
  if (len != HELLO.byteLength || memory.compare(at(ROOM), at(HELLO), len) != 0) return ACTION_CONTINUE;
  answer(200, 0, 0, at(greeting), greeting.byteLength);
  return ACTION_ANSWER;
}

export function castling_hook_response_headers(a: u32, b: u32, c: u32): i32 {
  headerSet(HEADER_MAP_RESPONSE, at(NAME), NAME.byteLength, at(VALUE), VALUE.byteLength);
  return ACTION_CONTINUE;
}

// In the place of `abort`, which is an import that the gateway does not have.
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  const said = String.UTF8.encode(message ? message : "aborted");
  panicked(at(said), said.byteLength);
  unreachable();
}
