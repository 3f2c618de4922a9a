// Bundles src/ into workbench/view/static/{view.js,view.css,uplot.js}, the files that the Python side gives to the browser.
//
//   node build.mjs           once, minified
//   node build.mjs --watch   again at every change, readable and with an inline source map (an external one breaks loading in JupyterLab)

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { dependencies } = JSON.parse(readFileSync(here("package.json"), "utf8"));
const watching = process.argv.includes("--watch");
const notice = "/*! inference-workbench (Apache-2.0) */";
const uplot = `/*! uPlot ${dependencies.uplot}, Copyright (c) 2022 Leon Sorokin (MIT); see THIRD_PARTY.md of inference-workbench */`;

const settings = {
  absWorkingDir: here("."),
  entryPoints: { view: "src/index.ts" },
  outdir: here("../../workbench/view/static"),
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  minify: !watching,
  sourcemap: watching ? "inline" : false,
  legalComments: "none",
  banner: { js: notice, css: notice },
  logLevel: watching ? "info" : "warning",
};

// The style is an entry point of the same name, which the script never imports; uPlot comes to a page once, beside the views on it.
const style = { ...settings, entryPoints: { view: "src/style.css" } };
const library = { ...settings, entryPoints: { uplot: "src/uplot.ts" }, banner: { js: uplot } };
const builds = [settings, style, library];
if (watching) await Promise.all(builds.map(async (each) => (await esbuild.context(each)).watch()));
else await Promise.all(builds.map((each) => esbuild.build(each)));
