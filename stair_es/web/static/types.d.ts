// Types of the page's state and of the bodies of its API, for tsc and editors. Browsers never load this file.

// ---- The API (stair_es/web/search/serializers.py) ----

type TokenWeight = [token: string, weight: number];

interface QueryToken {
  token: string;
  weight: number;
  factor: number;
  added?: boolean;
}

interface Contribution {
  token: string;
  query_weight: number;
  document_weight: number;
  contribution: number;
}

interface Duplicate {
  id: string;
  name: string;
  uri: string;
}

/** A part of a text: whether each piece is a word of the query. */
type Passage = [text: string, isMatch: boolean][];

/** A line of the text in a picture; its place as shares of the picture, if it is known. */
interface TextLine {
  text: string;
  box: [left: number, upper: number, right: number, lower: number] | null;
}

interface Hit {
  id: string;
  uri: string;
  name: string;
  caption: string | null;
  title: string | null;
  /** Parts of the text in the picture, around the words of the query. */
  passages: Passage[];
  price: number | null;
  score: number;
  weak: boolean;
  width: number | null;
  height: number | null;
  sha256: string | null;
  /** The URI of the document of which it is a page. */
  document: string | null;
  thumbnail: string | null;
  thumbnail_2x: string | null;
  contributions: Contribution[];
  text_score: number;
  /** The words of the query that the caption has. */
  caption_words: string[];
  tokens: TokenWeight[];
  duplicates: Duplicate[];
}

interface SearchResponse {
  query: QueryToken[];
  required: string[];
  excluded: string[];
  hits: Hit[];
  /** The cursor of the next page; null at the last one. */
  after: unknown[] | null;
  took_ms: number;
  truncated: string[];
  method: Method;
  weak_below: number | null;
  /** The parts of the text that are read as conditions. */
  conditions: { text: string; field: string; meaning: string }[];
  unknown_words: { word: string; suggestions: string[]; searched_for: string | null }[];
  remarks: string[];
}

interface TermsFacet {
  field: string;
  label: string;
  kind: "terms";
  buckets: { value: string | number | boolean; count: number }[];
  other: number;
}

interface RangeBucket {
  from: number | string;
  to: number | string;
  count: number;
}

interface RangeFacet {
  field: string;
  label: string;
  kind: "range" | "date";
  min: number | string;
  max: number | string;
  buckets: RangeBucket[];
}

/** `isDisabled` is the page's own: the field has nothing to choose for this query. */
type Facet = (TermsFacet | RangeFacet) & { isDisabled?: boolean };

interface FacetsResponse {
  /** Number of matches, which the facets count. */
  total: number;
  /** Number of weak matches. */
  weak: number;
  facets: Facet[];
}

interface FieldInfo {
  name: string;
  type: string;
  label: string;
}

interface AboutResponse {
  title: string;
  index: string;
  model: string;
  documents: number;
  captions: boolean;
  max_upload_bytes: number;
  fields: FieldInfo[];
  orders: { sort: string; label: string }[];
  suggestions: { token: string }[];
  /** Whether there is a report of coverage. */
  coverage: boolean;
  /** Whether words can be taught. */
  teach: boolean;
}

/** A word of the index (stair_es/web/search/teaching.py). */
interface TaughtWord {
  word: string;
  mode: "replace" | "add";
  tokens: TokenWeight[];
  /** The estimated share of right images among the matches. */
  precision: number | null;
  taught_at: string;
  /** The ids of marked images. */
  yes: string[];
  no: string[];
  /** How many of them are no longer there. */
  erased: number;
}

interface TeachPreviewResponse extends TaughtWord {
  /** Whether it is a word of the model. */
  known: boolean;
  /** Whether it was taught before. */
  taught: boolean;
  /** How many of the images that show it would match if they were not marked. */
  found_again: number;
  doubtful_yes: string[];
  matching_no: string[];
  images: number;
  sampled: number;
  matches: number;
  hits: Hit[];
}

/** The result of a change of the index. */
interface TeachResult {
  word: string;
  changed: number;
  failed: number;
  failure: string | null;
}

interface CoverageWord {
  word: string;
  searches: number;
  share: number;
  /** Searches that have a match. */
  matched: number;
  /** A search with the word. */
  example: string;
  /** The largest weight in the index; null for an unknown word. */
  largest_weight: number | null;
  suggestions: string[];
  searched_for: string | null;
}

interface UnmatchedSearch {
  query: string;
  searches: number;
  answer: string;
  /** The code of an error. */
  code: string;
}

/** The report of `stair-es coverage` (stair_es/web/coverage.py). */
interface CoverageReport {
  index: string;
  model: string;
  searches: number;
  /** Different searches. */
  queries: number;
  answers: Record<string, { searches: number; share: number; queries: number }>;
  words: Record<string, CoverageWord[]>;
  without_match: UnmatchedSearch[];
  remarks: string[];
}

/** The fields of an image. */
/** A point on the Earth in degrees. */
interface GeoPoint {
  lat: number;
  lon: number;
}

interface ImageFacts {
  width?: number;
  height?: number;
  bytes?: number;
  format?: string;
  folder?: string;
  taken_at?: string;
  modified_at?: string;
  camera?: string;
  lens?: string;
  iso?: number;
  aperture?: number;
  exposure_s?: number;
  focal_mm?: number;
  place?: string;
  country?: string;
  location?: unknown;
  [field: string]: unknown;
}

interface ImageResponse {
  id: string;
  uri: string;
  name: string;
  caption: string | null;
  text: TextLine[];
  tokens: TokenWeight[];
  facts: ImageFacts;
  thumbnail: string | null;
  original: string | null;
  explain: { sum_of_weights: number; token_count: number };
}

interface NeighborsResponse {
  hits: Hit[];
  duplicates: Duplicate[];
}

// ---- The state ----

type Method = "words-and-text" | "words" | "text" | "bag";

/** A number or a date; null for a range without this end. */
type RangeEnd = number | string | null;

interface ValuesFilter {
  values: string[];
}

/** `below` leaves `to` itself out. */
interface RangeFilter {
  values?: undefined;
  from: RangeEnd;
  to: RangeEnd;
  below?: boolean;
}

type FieldFilter = ValuesFilter | RangeFilter;

/** A query as the URL has it. Immutable: `query.js` builds new ones. */
interface Query {
  text: string;
  /** The id of an image. */
  like: string;
  /** The token weights of an uploaded image. */
  vector: TokenWeight[];
  /** Token -> factor, or the weight of a token that isn't in the query. */
  factors: Map<string, number>;
  require: string[];
  exclude: string[];
  filters: Map<string, FieldFilter>;
  /** A filter in the syntax of Lucene. */
  filter: string;
  method: Method;
  /** A field and a direction, such as `price:asc`; empty for the best match first. */
  sort: string;
  count: number;
  /** Cards with contributions instead of the gallery. */
  explain: boolean;
}

interface SearchRoute {
  view: "search";
  query: Query;
}

interface ImageRoute {
  view: "image";
  id: string;
  sort: "name" | "weight";
  find: string;
  picked: string[];
  pieces: boolean;
  explain: boolean;
}

interface CompareRoute {
  view: "compare";
  a: Query;
  b: Query;
  k: number;
}

interface CoverageRoute {
  view: "coverage";
}

type Route = SearchRoute | ImageRoute | CompareRoute | CoverageRoute;

/** A route to build a URL from; what an image's route leaves out has its default. */
type RouteTarget = SearchRoute | CompareRoute | CoverageRoute | (Partial<ImageRoute> & { view: "image"; id: string });

type QueryUpdate = (query: Query) => Query;

/** Updates the query and goes to it. Updates in a row with the same `mergeKey` are one entry of the history. */
type UpdateQuery = (update: QueryUpdate, mergeKey?: string) => void;

interface NavigateOptions {
  mergeKey?: string;
  replace?: boolean;
  keepScroll?: boolean;
}

/** What the router calls: before each step within the page, for each route, and when a search follows on an image. */
interface RouterCallbacks {
  onNavigate: () => void;
  /** `isMoved` if another view or image is shown. */
  onShow: (route: Route, isMoved: boolean) => void;
  onReturn: (id: string) => void;
}

/** What a list tells about an image, and the image's page shows at once. */
type ImageSummary = Pick<Hit, "name" | "thumbnail" | "caption" | "width" | "height"> & { duplicates?: Duplicate[] };

/** The hits of the last search, in order, and a way to load more. */
interface HitSequence {
  ids: string[];
  hits: Hit[];
  total: number;
  loadMore: () => Promise<boolean>;
}

/** What views share. */
interface App {
  about: AboutResponse | null;
  /** Why `about` could not be loaded. */
  aboutError: Error | null;
  navigate: (route: RouteTarget, options?: NavigateOptions) => void;
  loadAbout: () => Promise<void>;
  renderTitle: () => void;
  getImage: (id: string) => ImageSummary | undefined;
  rememberImages: (images: (ImageSummary & { id: string })[]) => void;
  getHitSequence: () => HitSequence;
  teach: import("./teach-mode.js").TeachMode;
  searchAgain: (text?: string) => void;
}

/** What a picture is marked as: it shows the word that is taught, or not. */
type Mark = "none" | "yes" | "no";

/** Opens the bar in which a word is taught. */
type Teach = (word: string) => void;

interface TaughtActions {
  teachMore: (word: string) => void;
  forget: (word: string) => void;
}

/** An element that is updated in place. */
interface Component<Item> {
  element: HTMLElement;
  update?: (item: Item) => void;
}

type Child = Node | string | number | null | undefined | false;

interface Props {
  on?: { [Type in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Type]) => unknown };
  data?: Record<string, string>;
  [attribute: string]: unknown;
}

/** The number of a token's color, or "rest" beyond the heaviest. */
type GetHue = (token: string) => string;

/** A hit with what it shares with the others of its list. */
interface HitItem {
  hit: Hit;
  position: number;
  scale: { score: number; contribution: number };
  getHue: GetHue;
  required: Set<string>;
}

/** What a click on a hit does; `buildOpenHref` and `buildSimilarHref` build URLs. */
interface HitActions {
  buildOpenHref: (id: string) => string;
  buildSimilarHref: (id: string) => string;
  selectToken: (token: string) => void;
  showDuplicates: (hit: Hit) => void;
}

/** Images side by side, each as high as the others. */
interface GalleryRow {
  tiles: HTMLElement[];
  height: number;
}

interface FacetItem<Kind = Facet> {
  facet: Kind;
  query: Query;
  about: AboutResponse | null;
}

interface Point {
  x: number;
  y: number;
}

// ---- Tasks ----

type Outcome<Result> =
  | { isStale: true; error?: undefined; result?: undefined }
  | { isStale: false; error: import("./api.js").ApiError; result?: undefined }
  | { isStale: false; error: null; result: Result };

// ---- The search view ----

interface SearchState {
  /** The query of the URL. */
  query: Query;
  /** The running search. */
  pending: { query: Query; startedMs: number } | null;
  /** Whether the running search takes long enough to show that. */
  isSlow: boolean;
  /** Whether it takes so long that the page says what it waits for. */
  isStalled: boolean;
  /** Whether placeholders are shown instead of the hits. */
  hasSkeletons: boolean;
  /** The query of the response. */
  answeredQuery: Query;
  /** The first page, with the cursor of the next one. */
  response: SearchResponse | null;
  /** The hits of all loaded pages, duplicates among them: counted by `n` in the URL. */
  hits: Hit[];
  /** Weak matches may be followed by matches that have each word of the query. */
  lastPage: Hit[];
  /** The hits without duplicates. */
  results: { strong: Hit[]; weak: Hit[] };
  isWeakExpanded: boolean;
  /** Null while they are counted. */
  facets: FacetsResponse | null;
  /** The facets of all images, so that the filters keep their places for every result. */
  corpusFacets: Facet[] | null;
  /** Why the search failed. */
  error: Error | null;
  /** Why the next page could not be loaded. */
  pageError: Error | null;
}

type SearchAction =
  | { type: "queryChanged"; query: Query }
  | { type: "searchStarted"; query: Query; startedMs: number }
  | { type: "searchSlowed" }
  | { type: "searchStalled" }
  | { type: "searchSucceeded"; query: Query; response: SearchResponse }
  | { type: "searchFailed"; error: Error }
  | { type: "pageLoaded"; response: SearchResponse }
  | { type: "pageFailed"; error: Error }
  | { type: "facetsCounted"; facets: FacetsResponse | null }
  | { type: "corpusCounted"; corpusFacets: Facet[] | null }
  | { type: "indexChanged" }
  | { type: "weakToggled" };

/** Numbers of loaded hits, and of all if known; `hasMore` if further matches may follow. */
interface HitCounts {
  strong: number;
  weak: number;
  total: number | null;
  hasMore: boolean;
}

/** A part of the line that shows a score. */
interface ScorePart {
  key: string;
  value: number;
  hue: string;
}

interface ContributionItem {
  token: string;
  contribution: Contribution;
  hue: string;
  max: number;
  isRequired: boolean;
}

/** An image in the query; `getRest` is the query without it. */
interface QueryChip {
  key: string;
  label: string;
  thumbnail: string | null;
  getRest: () => Query;
}

/** What the panel of weights shows. The response may be older than the query. */
interface PanelState {
  query: Query;
  answeredQuery: Query;
  response: SearchResponse | null;
}

/** A row of the panel; `isRequiredOnly` if the token is required without being in the query. */
interface TokenItem {
  token: string;
  weight: number;
  factor: number;
  hue: string;
  isAdded: boolean;
  isRequired: boolean;
  isRequiredOnly: boolean;
}

// ---- Filters ----

/** What the filters show; `facets` and `total` are null while they are counted. */
interface FilterState {
  query: Query;
  about: AboutResponse | null;
  corpusFacets: Facet[] | null;
  understood: SearchResponse["conditions"];
  facets: Facet[] | null;
  total: number | null;
}

/** A condition in readable form; `remove` lifts it. */
interface Condition {
  key: string;
  kind: string;
  text: string;
  nodes: Child[];
  remove: QueryUpdate;
}

/** A value with its number of images; null if it isn't known. */
interface ValueItem {
  value: string;
  count: number | null;
  maxCount: number;
  isSelected: boolean;
}

/** How the ends of a range are typed. */
interface RangeEndFormat {
  type: "date" | "number";
  unit: string;
  format: (end: RangeEnd) => string;
  parse: (text: string) => RangeEnd;
}

interface Completion {
  text: string;
  note: string;
  insert: string;
}

/** What is typed before the caret of a filter query, and where it starts. */
type CompletionContext =
  | { kind: "field"; prefix: string; start: number; followsCondition: boolean }
  | { kind: "value"; prefix: string; start: number; field: string };

type FieldContext = Extract<CompletionContext, { kind: "field" }>;
type ValueContext = Extract<CompletionContext, { kind: "value" }>;

// ---- The view of an image ----

/** `requestedId` is "" after a failure. */
interface ImageState {
  requestedId: string;
  image: ImageResponse | null;
  neighbors: NeighborsResponse | null;
}

/** What the viewer shows of an image; `original` is undefined until all facts are loaded. */
interface ViewedImage extends ImageSummary {
  id: string;
  original?: string | null;
  /** Lines of text that have a word of the query. */
  found?: TextLine[];
}

interface ImageViewerOptions {
  onStep: (step: 1 | -1) => void;
  /** Is called when the best available picture is loaded. */
  onLoad: () => void;
}

interface ZoomOptions {
  /** The scale at which a pixel of the picture is a pixel of the page. */
  getFullScale: () => number;
  /** Is called for a swipe to the next (1) or the previous (-1) picture. */
  onSwipe: (step: 1 | -1) => void;
  onZoom: (scale: number) => void;
}

interface ImageUploadOptions {
  button: HTMLElement;
  input: HTMLInputElement;
  onImage: (blob: Blob) => void;
  /** Is called with a message for anything else than a picture. */
  onReject: (message: string) => void;
}

interface ImageToken {
  token: string;
  weight: number;
  maxWeight: number;
  hue: string;
  isPicked: boolean;
}

// ---- The comparison ----

/** A side as the URL names it. */
type SideName = "a" | "b";
type Side = "left" | "right";

/** A hit of both rankings with its ranks, which start at 1. */
interface Move {
  id: string;
  from: number;
  to: number;
}

/** A hit with its rank on the other side; `isCompared` if that side has an answer. */
interface RankedHit {
  hit: Hit;
  rank: number;
  otherRank: number | undefined;
  isCompared: boolean;
  maxScore: number;
  getHue: GetHue;
}
