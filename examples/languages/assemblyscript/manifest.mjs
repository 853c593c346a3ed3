// Adds the manifest to a module, as a custom section at its end: node manifest.mjs greeter.wasm
import { appendFileSync } from "node:fs";

const manifest = {
  abi: 1,
  name: "greeter-assemblyscript",
  version: "0.1.0",
  sdk: "assemblyscript",
  hooks: ["content", "response_headers"],
};

// Numbers of Wasm: seven bits a byte, the lowest first.
function number(value) {
  const bytes = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return Buffer.from([...bytes, value]);
}

const name = Buffer.from("castling.manifest");
const section = Buffer.concat([number(name.length), name, Buffer.from(JSON.stringify(manifest))]);
appendFileSync(process.argv[2], Buffer.concat([Buffer.from([0]), number(section.length), section]));
