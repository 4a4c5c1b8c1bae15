/**
 * Bundles the three hosts into bc_tensorboard/static/, with the licences of what they contain.
 * With --check nothing is written: it fails where the files there are not what the source gives.
 */

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";

const frontend = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const output = resolve(frontend, "../bc_tensorboard/static");
const target = "es2022";

/** Style sheets travel inside the bundle, since a notebook output and a single file have nowhere else to keep them. */
const minifiedCss = {
  name: "minified-css",
  setup(context) {
    context.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true, target: "es2022" });
      return { contents: code, loader: "text" };
    });
  },
};

async function bundle(entry, name, format) {
  const { metafile, outputFiles } = await build({
    absWorkingDir: frontend,
    entryPoints: [entry],
    outfile: join(output, name),
    bundle: true,
    format,
    target,
    minify: true,
    legalComments: "none",
    metafile: true,
    write: false,
    logLevel: "warning",
    plugins: [minifiedCss],
  });
  return { name, text: outputFiles[0].text, packages: packagesOf(metafile) };
}

/** Folders of the packages that a bundle contains, such as "node_modules/preact". */
function packagesOf(metafile) {
  const found = new Set();
  for (const { inputs } of Object.values(metafile.outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path);
      if (folder && bytesInOutput > 0) found.add(folder[0]);
    }
  }
  return found;
}

async function licenceOf(folder) {
  const place = resolve(frontend, folder);
  const { name, version, license } = JSON.parse(await readFile(join(place, "package.json"), "utf8"));
  const file = (await readdir(place)).sort().find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${name}: no licence file in ${folder}; add one or replace the package`);
  const text = (await readFile(join(place, file), "utf8")).replaceAll("\r\n", "\n").trim();
  return `${name} ${version} (${license})\n\n${text}\n`;
}

const bundles = await Promise.all([
  bundle("src/hosts/tensorboard.ts", "index.js", "esm"),
  bundle("src/hosts/widget.ts", "widget.js", "esm"),
  bundle("src/hosts/page.ts", "page.js", "iife"),
]);
const folders = [...new Set(bundles.flatMap(({ packages }) => [...packages]))].sort();
const heading = "The bundles in this folder contain these packages, under the licences printed below.\n";
const licences = [heading, ...(await Promise.all(folders.map(licenceOf)))].join(`\n${"-".repeat(80)}\n\n`);
const files = [...bundles, { name: "THIRD_PARTY_LICENSES.txt", text: licences }];

if (process.argv.includes("--check")) {
  const stale = [];
  for (const { name, text } of files) {
    const written = await readFile(join(output, name), "utf8").catch(() => null);
    if (written !== text) stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`Not built from this source: ${stale.join(", ")} in bc_tensorboard/static. Run "npm run build".`);
    process.exitCode = 1;
  }
} else {
  await mkdir(output, { recursive: true });
  for (const { name, text } of files) await writeFile(join(output, name), text);
}
