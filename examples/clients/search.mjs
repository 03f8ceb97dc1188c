// Search images by text: node search.mjs INDEX "a cup of coffee". For Node.js 18 or newer, without a library.
//
// STAIR_ES_URL is the cluster. The query comes from the service at STAIR_ES_ENCODER_URL (stair-es encoder --index INDEX; its access
// token in STAIR_ES_ENCODER_TOKEN), or is built of the tokens in the file STAIR_ES_TABLE (stair-es export --table).
import { readTable } from './lookup.mjs';

const { STAIR_ES_URL: cluster, STAIR_ES_ENCODER_URL: encoder, STAIR_ES_ENCODER_TOKEN: secret, STAIR_ES_TABLE: file } = process.env;

async function request(url, body, headers) {
  const response = await fetch(url, {
    method: body ? 'POST' : 'GET',
    headers: { 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
  return response.json();
}

// The search without weak matches, and what to tell the user.
function buildQuery(text) {
  const authorization = secret && { authorization: `Bearer ${secret}` };
  return request(`${encoder}/v1/query`, { text, k: 3, cut: true, describe: true }, authorization);
}

async function lookUp(index, text) {
  const table = await readTable(file); // read it once per program
  await checkModel(index, table.model);
  return { body: buildBody(table.encode(text), 3), unknown_words: [], remarks: [] };
}

// Fails if another model wrote the images of the index. Check this once, when the program starts.
async function checkModel(index, model) {
  const found = await request(`${cluster}/${index}/_mapping?filter_path=*.mappings._meta.stair_es.model`);
  for (const { mappings } of Object.values(found)) {
    const written = mappings._meta.stair_es.model;
    if (written !== model) throw new Error(`${index} was written by ${written}, and these tokens are of ${model}`);
  }
}

// The score is the sum of the products of weights.
function buildBody(tokens, size) {
  const name = (token) => token.replaceAll('%', '%25').replaceAll('.', '%2E') || '%'; // as in the index
  const should = Object.entries(tokens).map(([token, boost]) => ({ rank_feature: { field: `tokens.${name(token)}`, boost, linear: {} } }));
  return { size, _source: ['uri'], query: should.length ? { bool: { should } } : { match_none: {} } };
}

const [index, text] = process.argv.slice(2);
const { body, unknown_words: unknown, remarks } = await (encoder ? buildQuery(text) : lookUp(index, text));
for (const note of [...unknown.map(({ word }) => `unknown word: ${word}`), ...remarks]) console.error(note);
const { hits } = await request(`${cluster}/${index}/_search`, body);
for (const hit of hits.hits) console.log(hit._score.toFixed(4), hit._source.uri);
if (!hits.hits.length) console.log('no good match');
