// All that the hub's JavaScript client does to read: `node client.mjs REPO FOLDER`, with HF_ENDPOINT set.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { downloadFile, fileDownloadInfo, listFiles, pathsInfo, snapshotDownload } from "@huggingface/hub";

const [repo, folder] = process.argv.slice(2);
const hub = { repo, hubUrl: process.env.HF_ENDPOINT };
const digest = (data) => createHash("sha256").update(data).digest("hex");

const listed = [];
for await (const file of listFiles({ ...hub, recursive: true, expand: true })) {
  if (file.type === "file") listed.push([file.path, file.size]);
}
const files = {};
for (const [path] of listed) {
  const blob = await downloadFile({ ...hub, path });
  files[path] = digest(Buffer.from(await blob.arrayBuffer()));
}
const info = await fileDownloadInfo({ ...hub, path: "model.safetensors" });
const absent = await fileDownloadInfo({ ...hub, path: "absent.json" });
const paths = await pathsInfo({ ...hub, paths: ["config.json", "weights", "absent"], expand: true });
const snapshot = await snapshotDownload({ ...hub, cacheDir: folder });
const found = {};
for (const entry of await readdir(snapshot, { recursive: true, withFileTypes: true })) {
  if (entry.isDirectory()) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  found[relative(snapshot, path)] = digest(readFileSync(path));
}
const manifest = new URL("./node_modules/@huggingface/hub/package.json", import.meta.url);
console.log(JSON.stringify({
  version: JSON.parse(readFileSync(manifest)).version,
  listed: listed.sort(),
  files,
  size: info.size,
  absent,
  paths: paths.map((one) => one.path),
  snapshot: found,
}));
