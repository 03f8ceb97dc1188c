// The tokens of a text, looked up in a file of `stair-es export --table`. For Node.js 18 or newer and browsers, without a library.
//
//     node lookup.mjs stair-mini-3.tsv.gz < texts.txt      a line of tokens and weights for each line
//
// As a module: parseTable(await (await fetch('table.tsv')).text()).encode('a red car') is {car: 0.7, ...}, heaviest first.

// Words in lower case without accents, and other characters that end a phrase: not spaces, apostrophes or hyphens.
const splitWords = (text) =>
  text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().match(/\p{L}+|[^\p{L} \t\r\n'\u2019-]/gu) ?? [];

export function parseTable(content) {
  const end = content.indexOf('\n\n');
  const about = Object.fromEntries(content.slice(0, Math.max(end, 0)).split('\n').map((line) => line.split('\t')));
  if (about['stair-es-table'] !== '1') throw new Error('no table of version 1: write it with stair-es export --table');
  const rows = new Map();
  for (const row of content.slice(end + 2).trimEnd().split('\n')) {
    const tab = row.indexOf('\t');
    rows.set(row.slice(0, tab), row.slice(tab + 1));
  }

  function encode(text) {
    const words = splitWords(text);
    const largest = new Map();
    for (let begin = 0, end; begin < words.length; begin = Math.max(end, begin + 1)) {
      end = Math.min(words.length, begin + Number(about.max_words)); // the longest known phrase
      while (end > begin && !rows.has(words.slice(begin, end).join(' '))) end--;
      if (end === begin) continue;
      const row = rows.get(words.slice(begin, end).join(' ')).split('\t');
      for (let i = 0; i + 1 < row.length; i += 2) largest.set(row[i], Math.max(Number(row[i + 1]), largest.get(row[i]) ?? 0));
    }
    const heaviest = [...largest].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).slice(0, Number(about.max_tokens));
    const length = Math.sqrt(heaviest.reduce((sum, [, weight]) => sum + weight * weight, 0));
    return Object.fromEntries(heaviest.map(([token, weight]) => [token, Math.round((weight / length) * 1e5) / 1e5]));
  }

  return { model: about.model, encode };
}

/** Read a table in Node.js. */
export async function readTable(path) {
  const [{ readFileSync }, { gunzipSync }] = [await import('node:fs'), await import('node:zlib')];
  const content = readFileSync(path);
  return parseTable((path.endsWith('.gz') ? gunzipSync(content) : content).toString('utf8'));
}

if (globalThis.process?.argv[1]?.endsWith('lookup.mjs')) {
  const table = await readTable(process.argv[2]);
  const lines = (await import('node:fs')).readFileSync(0, 'utf8').split('\n').slice(0, -1);
  for (const line of lines) {
    console.log(Object.entries(table.encode(line)).map(([token, weight]) => `${token}\t${weight.toFixed(5)}`).join('\t'));
  }
}
