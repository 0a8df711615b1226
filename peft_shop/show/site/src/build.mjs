// Builds ../assets/app.js and app.css; the same sources give the same bytes.
// node build.mjs [FOLDER]
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { dirname, resolve } from "node:path";

const here = dirname(fileURLToPath(import.meta.url));
const into = resolve(here, process.argv[2] ?? "../assets");
const common = { absWorkingDir: here, minify: true, charset: "ascii", legalComments: "none" };

await build({
  ...common,
  entryPoints: ["main.tsx"],
  outfile: resolve(into, "app.js"),
  bundle: true,
  format: "iife",
  target: "es2022",
  // children as arguments: the automatic runtime writes "children:" at every element
  jsx: "transform",
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: ["elements.ts"],
  tsconfigRaw: "{}",
});
await build({ ...common, entryPoints: ["app.css"], outfile: resolve(into, "app.css"), target: "chrome110" });
