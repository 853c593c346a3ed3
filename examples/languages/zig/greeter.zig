//! Answers /hello with a greeting from its config, and marks every response. Built by
//!   zig build-exe greeter.zig -target wasm32-freestanding -O ReleaseSmall -fno-entry -rdynamic -femit-bin=greeter.wasm
const std = @import("std");

const castling = struct {
    extern "castling" fn answer(status: u32, headers: ?[*]const u8, headers_len: u32, body: [*]const u8, body_len: u32) i32;
    extern "castling" fn config_get(out: [*]u8, cap: u32) i32;
    extern "castling" fn fail(ptr: [*]const u8, len: u32) void;
    extern "castling" fn header_set(map: u32, name: [*]const u8, name_len: u32, ptr: [*]const u8, len: u32) i32;
    extern "castling" fn property_get(property: u32, out: [*]u8, cap: u32) i32;
};

// Numbers of sdk/abi/abi.txt.
const action_failed = -1;
const action_continue = 0;
const action_answer = 1;
const property_path = 1;
const header_map_response = 1;

comptime {
    asm (
        \\.section .custom_section.castling.manifest,"",@
        \\.ascii "{\"abi\":1,\"name\":\"greeter-zig\",\"version\":\"0.1.0\",\"sdk\":\"zig\",\"hooks\":[\"content\",\"response_headers\"]}"
        \\.text
    );
}

const Config = struct { greeting: []const u8 };

var memory: [4096]u8 = undefined;
var greeting: []const u8 = "";

fn failed(text: []const u8) i32 {
    castling.fail(text.ptr, text.len);
    return action_failed;
}

export fn castling_configure() i32 {
    var text: [1024]u8 = undefined;
    const len: usize = @intCast(castling.config_get(&text, text.len));
    if (len > text.len) return failed("the config is longer than 1024 bytes");
    var allocator = std.heap.FixedBufferAllocator.init(&memory);
    const config = std.json.parseFromSliceLeaky(Config, allocator.allocator(), text[0..len], .{ .allocate = .alloc_always }) catch
        return failed("expected a greeting, and nothing else");
    greeting = config.greeting;
    return action_continue;
}

export fn castling_hook_content(_: u32, _: u32, _: u32) i32 {
    var path: [64]u8 = undefined;
    const len = castling.property_get(property_path, &path, path.len);
    if (len < 0 or len > path.len) return action_continue;
    if (!std.mem.eql(u8, path[0..@intCast(len)], "/hello")) return action_continue;
    _ = castling.answer(200, null, 0, greeting.ptr, greeting.len);
    return action_answer;
}

export fn castling_hook_response_headers(_: u32, _: u32, _: u32) i32 {
    const name = "x-greeter";
    const value = "zig";
    _ = castling.header_set(header_map_response, name, name.len, value, value.len);
    return action_continue;
}
