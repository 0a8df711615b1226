// Builds ../assets/app.js and app.css; the same sources give the same bytes.
// node build.mjs [FOLDER]
import { build } from "esbuild";
import { readFileSync } from "node:fs";
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
  // long names of our own records, which are in no data
  mangleProps: /^(parameters|troubles|includeFlagged|excludedVariants|minEvidence|minEvidenceName|rankBy|requirements|confidence|limitText|metricOf|rankable|standing|legend|whisker)$/,
});
await build({ ...common, entryPoints: ["app.css"], outfile: resolve(into, "app.css"), target: "chrome110", plugins: [
  // custom properties get one letter each, in the order in which they come
  { name: "letters", setup: (plan) => plan.onLoad({ filter: /app\.css$/ }, ({ path }) => {
    const names = [];
    const contents = readFileSync(path, "utf8").replace(/--[a-z-]+/g, (name) => {
      if (!names.includes(name)) names.push(name);
      return `--${String.fromCharCode(97 + names.indexOf(name))}`;
    });
    return { contents, loader: "css" };
  }) },
] });
