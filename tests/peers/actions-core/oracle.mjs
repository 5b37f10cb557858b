// Prints, as JSON, what the official toolkit writes for each text it is given.
// usage: node oracle.mjs FOLDER_OF_@actions/core '["text", …]'
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, texts] = process.argv.slice(2);
const manifest = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
const core = await import(pathToFileURL(path.join(folder, manifest.main)).href);
const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'oracle-')), 'output');
const write = process.stdout.write.bind(process.stdout);

function captured(action) {
  let text = '';
  process.stdout.write = (chunk) => {
    text += chunk;
    return true;
  };
  try {
    action();
  } finally {
    process.stdout.write = write;
  }
  return text;
}

const answers = JSON.parse(texts).map((text) => {
  const place = { title: text, file: text, startLine: 3, endLine: 4, startColumn: 5, endColumn: 6 };
  fs.writeFileSync(file, '');
  process.env.GITHUB_OUTPUT = file;
  captured(() => core.setOutput('NAME', text));
  const entry = fs.readFileSync(file, 'utf8');
  delete process.env.GITHUB_OUTPUT;
  return {
    mask: captured(() => core.setSecret(text)),
    group: captured(() => core.startGroup(text)),
    debug: captured(() => core.debug(text)),
    error: captured(() => core.error(text, place)),
    warning: captured(() => core.warning(text, place)),
    notice: captured(() => core.notice(text, place)),
    entry,
    delimiter: entry.slice('NAME<<'.length, entry.indexOf('\n')),
  };
});
fs.rmSync(path.dirname(file), { recursive: true });
write(JSON.stringify(answers));
