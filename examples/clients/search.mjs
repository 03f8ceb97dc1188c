// node search.mjs INDEX "a cup of coffee"      plain text: documents with impacts (stair-es ingest --impact-field)
// node search.mjs INDEX kitten=0.9 cat=0.4     weighted words: every index
// stair-es encode --text "a cup of coffee" --json | node search.mjs INDEX -     the words that the model asks with
import { text as readAll } from 'node:stream/consumers';

const [index, ...asked] = process.argv.slice(2);
if (!asked.length) {
  console.error('usage: node search.mjs INDEX TEXT | INDEX WORD=WEIGHT... | INDEX -');
  process.exit(2);
}

// As the index writes words: see docs/templates.md.
const escaped = (word) => word.replaceAll('%', '%25').replaceAll('.', '%2E') || '%';

async function params() {
  if (asked[0] === '-') {
    const { tokens } = JSON.parse(await readAll(process.stdin));
    return ['stair-es-tokens', { tokens: Object.entries(tokens).map(([word, weight]) => ({ token: escaped(word), weight })) }];
  }
  if (!asked[0].includes('=')) return ['stair-es-match', { text: asked.join(' ') }];
  const pairs = asked.map((pair) => pair.split(/=(?=[^=]*$)/));
  return ['stair-es-tokens', { tokens: pairs.map(([word, weight]) => ({ token: escaped(word), weight: Number(weight) })) }];
}

const [id, given] = await params();
const response = await fetch(`${process.env.STAIR_ES_URL}/${index}/_search/template`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ id, params: { size: 3, ...given } }),
});
const answer = await response.json();
if (!response.ok) {
  console.error(`HTTP ${response.status}: ${JSON.stringify(answer.error)}`);
  process.exit(1);
}
for (const hit of answer.hits.hits) console.log(hit._score.toFixed(4), hit._source.uri);
