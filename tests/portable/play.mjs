// Plays recordings in a WebAssembly module: `node play.mjs MODULE FILE…`, a line for each.

import { readFileSync } from "node:fs";
import { basename } from "node:path";

const [module, ...recordings] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(module));

/** The exported function of this name, which the compiler made longer. */
function exported(name) {
    const longer = new RegExp(`${name}(17h[0-9a-f]{16}E)?$`);
    const found = Object.keys(instance.exports).filter((symbol) => longer.test(symbol));
    if (found.length !== 1) throw new Error(`${found.length} exports are called ${name}`);
    return instance.exports[found[0]];
}

const [open, put, take] = ["player_open", "player_put", "player_take"].map(exported);
for (const recording of recordings) {
    const player = open();
    for (const byte of readFileSync(recording)) put(player, byte);
    const verdict = [];
    for (let byte = take(player); byte >= 0; byte = take(player)) verdict.push(byte);
    const text = Buffer.from(verdict).toString();
    console.log(`${basename(recording, ".jsonl")}: ${text.slice(1)}`);
    if (!text.startsWith("=")) process.exitCode = 1;
}
