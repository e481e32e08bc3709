// Writes what Yosys' package carries for its /share, most of it inside a script, as files below DIR: node share.js DIR
import fs from "node:fs";
import path from "node:path";
import { filesystem } from "./node_modules/@yowasp/yosys/gen/resources-yosys.js"; // past what the package exports

function write(tree, dir) {
  fs.mkdirSync(dir, { recursive: true });
  for (const [name, value] of Object.entries(tree)) {
    const file = path.join(dir, name);
    if (typeof value === "string" || value instanceof Uint8Array) fs.writeFileSync(file, value);
    else if (value instanceof URL) fs.copyFileSync(value, file);
    else write(value, file);
  }
}

write(filesystem.share, process.argv[2]);
