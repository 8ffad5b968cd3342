// The query: what is asked, its address and history, and the responses of /api/search.
import { $, card, clock, showMessage } from "./results.js";
import { showAbout, showExamples } from "./start.js";

const MAX_BYTES = 20_000_000;
const PAGE = 12; // videos of a response
const TITLE = document.title;
// `file` is an audio or image file, `like` an indexed moment, STORE/FILE/SECOND; `weight` is that of
// the audio as the user set it, null: by the kind of query.
const NOTHING = { text: "", file: null, like: "", weight: null };
let query = NOTHING;
let lastRequest = 0; // so that a slow response does not replace a later one
let full = 0; // the best score, which fills a card's bar
let examples = null; // a promise of them
const files = []; // of the queries in the history, whose addresses cannot hold them

const showError = (error) => showMessage(error.message, true);

const isEmpty = ({ text, file, like }) => !text && !file && !like;

const kindOf = (upload) => {
  if (!upload) return "";
  return upload.type.startsWith("image/") ? "image" : "audio";
};

const addressOf = ({ text, like, weight }) => {
  const parameters = new URLSearchParams({ ...(text && { q: text }), ...(like && { like }), ...(weight !== null && { w: weight }) });
  return parameters.size ? `?${parameters}` : location.pathname;
};

// Asks a query; the browser's back button returns to the one before.
function ask(changes) {
  const before = query;
  query = { ...query, ...changes };
  if (addressOf(query) !== addressOf(before) || query.file !== before.file) {
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    const file = query.file ? files.push(query.file) - 1 : null;
    history.pushState({ file, shown: PAGE, scroll: 0 }, "", addressOf(query));
  }
  run();
}

// Asks with another weight, which by itself is no step back.
function reweigh(weight) {
  const text = $("text").value.trim();
  if (text !== query.text) {
    ask({ text, weight, like: "" });
    return;
  }
  query = { ...query, weight };
  history.replaceState({ ...history.state, shown: PAGE, scroll: 0 }, "", addressOf(query));
  run();
}

// The query of the address and the history's entry.
function restore() {
  const address = new URLSearchParams(location.search);
  const weight = address.get("w");
  if (weight !== null) $("weight").value = weight; // which refuses what is no weight
  const file = history.state?.file ?? null;
  query = {
    text: (address.get("q") ?? "").trim(),
    file: file === null ? null : files[file] ?? null,
    like: address.get("like") ?? "",
    weight: weight === null ? null : $("weight").value,
  };
  if (file !== null && !query.file) { // the page was loaded anew
    clear();
    showQuery();
    showMessage("The file of this query is no longer at hand: choose it again.");
    return;
  }
  run({ shown: history.state?.shown ?? PAGE, scroll: history.state?.scroll ?? 0 });
}

// Shows the query and its first results, or the start page.
async function run({ shown = PAGE, scroll = 0 } = {}) {
  showQuery();
  if (isEmpty(query)) {
    clear();
    return;
  }
  $("start").hidden = true;
  const result = await request({ top: shown, skip: 0 });
  if (!result) return;
  full = result.hits.length ? result.hits[0].score : 0;
  if (query.weight === null) showWeight(result.audio_weight);
  if (result.like) $("like-text").textContent = `Similar to ${result.like.path} · ${clock(result.like.second)}`;
  $("results").replaceChildren(...cards(result));
  summarise(result);
  scrollTo(0, scroll);
}

async function more() {
  const before = $("results").children.length;
  const result = await request({ top: PAGE, skip: before });
  if (!result) return;
  $("results").append(...cards(result));
  summarise(result);
  history.replaceState({ ...history.state, shown: $("results").children.length }, "");
  $("results").children[before]?.querySelector(".moment").focus();
}

const cards = ({ hits, store }) => hits.map((hit) => card(hit, store, full, askSimilar));

function askSimilar(like) {
  ask({ ...NOTHING, like });
  $("clear").focus({ preventScroll: true });
}

function clear() {
  lastRequest += 1;
  $("results").replaceChildren();
  $("more").hidden = true;
  showMessage("");
  showStart();
}

// The examples, fetched when they are first needed, while nothing is asked.
async function showStart() {
  $("start").hidden = true;
  if (!isEmpty(query)) return;
  examples ??= showExamples((text) => ask({ ...NOTHING, text })).catch(showError);
  await examples;
  $("start").hidden = !isEmpty(query) || !$("examples").children.length;
}

// A response of the server about the query, of its videos from `skip` on; null if it is none.
async function request({ top, skip }) {
  const number = ++lastRequest;
  const { text, file, like, weight } = query;
  const parameters = new URLSearchParams({ text, kind: kindOf(file), like, top: Math.min(top, 60), skip, ...(weight !== null && { audio_weight: weight }) });
  showMessage("Searching …");
  try {
    const response = await fetch(`/api/search?${parameters}`, { method: "POST", body: file });
    const result = await response.json();
    if (number !== lastRequest) return null;
    if (!response.ok) throw new Error(typeof result.detail === "string" ? result.detail : "This query is not valid.");
    return result;
  } catch (error) {
    if (number !== lastRequest) return null;
    if (!skip) clear();
    showMessage(error instanceof TypeError ? "The server does not respond. Is `trimodal serve` still running?" : error.message, true);
    return null;
  }
}

function summarise({ warnings, audio_weight, more: others }) {
  const videos = $("results").children.length;
  const none = query.like ? "No other video is like it." : audio_weight < 1 ? "Nothing is indexed." : "Nothing that is indexed has audio.";
  const summary = videos ? `${others ? "The first " : ""}${videos} ${videos === 1 ? "video" : "videos"}, best first.` : none;
  showMessage([summary, ...warnings].join(" "));
  $("more").hidden = !others;
}

function showQuery() {
  const { text, file, like } = query;
  $("text").value = text;
  document.title = text || like || file ? `${text || file?.name || "Similar"} - ${TITLE}` : TITLE;
  $("clear").hidden = !file && !like;
  $("drop").hidden = Boolean(like);
  $("like").hidden = !like;
  if (like) {
    $("like-image").src = `/thumbnails/${like}.jpg`;
    $("like-text").textContent = "Similar to a moment";
  }
  const prompt = document.createElement("span");
  prompt.innerHTML = "Drop an audio or image file here, or <u>choose one</u>";
  $("drop-text").replaceChildren(file ? `Query with the ${kindOf(file)} file ${file.name}` : prompt);
  showWeight();
}

function showWeight(byKind = 0.2) {
  const weight = query.weight ?? byKind;
  $("weight").value = weight;
  $("weight-shown").textContent = Number(weight).toFixed(2);
  $("by-kind").hidden = query.weight === null;
}

function choose(upload) {
  if (upload?.size > MAX_BYTES) {
    showMessage("The file is larger than 20 MB.", true);
    return;
  }
  ask({ text: $("text").value.trim(), file: upload, like: "" });
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text && isEmpty(query)) showMessage("Type a sentence, or choose an audio or image file.");
  else ask(text ? { text, like: "" } : { text });
});
$("text").addEventListener("input", () => {
  if (!$("text").value && query.text) ask({ text: "" });
});
$("file").addEventListener("change", () => {
  const [upload] = $("file").files;
  $("file").value = ""; // so that the same file can be chosen again
  if (upload) choose(upload);
});
$("clear").addEventListener("click", () => {
  ask({ text: $("text").value.trim(), file: null, like: "" });
  $("text").focus();
});
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  ask(NOTHING);
  $("text").focus();
});
$("more").addEventListener("click", more);
$("weight").addEventListener("input", () => {
  query = { ...query, weight: $("weight").value };
  showWeight();
});
$("weight").addEventListener("change", () => reweigh($("weight").value));
$("by-kind").addEventListener("click", () => {
  reweigh(null);
  $("weight").focus();
});
// Files may be dropped anywhere: otherwise the browser would leave the page and open the file.
let depth = 0;
const highlight = (change) => (event) => {
  event.preventDefault();
  depth = Math.max(0, depth + change);
  $("drop").classList.toggle("over", depth > 0);
};
document.addEventListener("dragenter", highlight(1));
document.addEventListener("dragleave", highlight(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  highlight(-depth)(event);
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
addEventListener("popstate", restore);

history.scrollRestoration = "manual";
const address = new URLSearchParams(location.search);
if (address.has("token")) { // it is in the cookie now; not to be kept in the history
  address.delete("token");
  history.replaceState(history.state, "", address.size ? `?${address}` : location.pathname);
}
restore();
showAbout().catch(showError);
