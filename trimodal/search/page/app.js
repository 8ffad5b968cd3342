// The page's only script: queries /api/search, shows the moments and plays them.
const $ = (id) => document.getElementById(id);
const MAX_BYTES = 20_000_000;
let file = null; // the audio or image file of the query
let weight = null; // of the audio, as the user set it; null: by the kind of query
let lastQuery = 0; // so that a slow response does not replace a later one

const clock = (seconds) => {
  const total = Math.floor(seconds);
  return `${Math.floor(total / 60)}:${String(total % 60).padStart(2, "0")}`;
};

const showMessage = (text, bad = false) => {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
};

const showWeight = (value) => {
  $("weight").value = value;
  $("weight-shown").textContent = Number(value).toFixed(2);
  $("by-kind").hidden = weight === null;
};

const partsOf = ({ from_image, from_audio }) =>
  `image ${from_image.toFixed(2)}, ${from_audio === null ? "no audio" : `audio ${from_audio.toFixed(2)}`}`;

const kindOf = (upload) => {
  if (!upload) return "";
  return upload.type.startsWith("image/") ? "image" : "audio";
};

async function about() {
  const response = await fetch("/api/about");
  const index = await response.json();
  if (!response.ok) throw new Error(index.detail);
  const parts = [`${index.moments.toLocaleString()} moments of ${index.videos.toLocaleString()} videos in ${index.folder}`];
  if (index.problems) parts.push(`${index.problems} with problems`);
  $("about").textContent = parts.join(", ");
  if (!index.moments) showMessage("Nothing is indexed yet: run `trimodal index FOLDER`, then reload this page.");
}

async function search() {
  const text = $("text").value.trim();
  if (!text && !file) {
    showMessage("Type a sentence, or choose an audio or image file.");
    return;
  }
  const query = ++lastQuery;
  const parameters = new URLSearchParams({ text, kind: kindOf(file), ...(weight === null ? {} : { audio_weight: weight }) });
  showMessage("Searching …");
  try {
    const response = await fetch(`/api/search?${parameters}`, { method: "POST", body: file });
    const result = await response.json();
    if (query !== lastQuery) return;
    if (!response.ok) throw new Error(typeof result.detail === "string" ? result.detail : "This query is not valid.");
    show(result);
    history.replaceState(null, "", text ? `?${new URLSearchParams({ q: text, ...(weight === null ? {} : { w: weight }) })}` : "/");
  } catch (error) {
    if (query !== lastQuery) return;
    $("results").replaceChildren();
    showMessage(error instanceof TypeError ? "The server does not respond. Is `trimodal serve` still running?" : error.message, true);
  }
}

function show({ store, hits, warnings, audio_weight }) {
  if (weight === null) showWeight(audio_weight);
  $("results").replaceChildren(...hits.map((hit) => card(hit, store)));
  const summary = hits.length ? `${hits.length} ${hits.length === 1 ? "video" : "videos"}, best first.` : audio_weight < 1 ? "Nothing is indexed." : "Nothing that is indexed has audio.";
  showMessage([summary, ...warnings].join(" "));
}

function card(hit, store) {
  const node = $("hit").content.cloneNode(true);
  const [best, ...others] = hit.moments;
  const name = `${store}/${hit.file}/${best.second}.jpg`;
  const button = node.querySelector(".moment");
  button.setAttribute("aria-label", `Play ${hit.path} at ${clock(best.second)}, score ${best.score.toFixed(2)}`);
  button.addEventListener("click", () => play(hit, best, store));
  node.querySelector(".thumbnail").src = `/thumbnails/${name}`;
  node.querySelector(".thumbnail").style.setProperty("--aspect", hit.aspect);
  const mel = node.querySelector(".mel");
  const silent = () => {
    const note = document.createElement("span");
    note.className = "silent";
    note.textContent = "no audio";
    mel.replaceWith(note);
  };
  if (hit.has_audio) {
    mel.addEventListener("error", silent);
    mel.src = `/mels/${name}`;
    const where = node.querySelector(".where");
    const heat = node.querySelector(".heat");
    where.hidden = false;
    where.addEventListener("click", () => toggleHeat(where, heat, `/heat_maps/${store}/${hit.file}/${best.second}.png`));
  } else silent();
  node.querySelector(".score").textContent = best.score.toFixed(2);
  node.querySelector(".path").textContent = `${hit.path} · ${clock(best.second)}`;
  node.querySelector(".parts").textContent = partsOf(best);
  const also = node.querySelector(".others");
  if (others.length) also.append("also at ");
  for (const moment of others) {
    const link = document.createElement("button");
    link.type = "button";
    link.textContent = clock(moment.second);
    link.title = `${moment.score.toFixed(2)}: ${partsOf(moment)}`;
    link.setAttribute("aria-label", `Play ${hit.path} at ${clock(moment.second)}, score ${link.title}`);
    link.addEventListener("click", () => play(hit, moment, store));
    also.append(link);
  }
  return node;
}

async function toggleHeat(button, image, address) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  if (shown && !image.getAttribute("src")) {
    const response = await fetch(address);
    if (!response.ok) {
      showMessage((await response.json()).detail, true);
      return;
    }
    image.src = address;
  }
  button.setAttribute("aria-pressed", shown);
  image.hidden = !shown;
}

function play(hit, moment, store) {
  const video = $("video");
  $("player-title").textContent = `${hit.path} · ${clock(moment.second)}`;
  $("player-message").textContent = "";
  video.src = `/videos/${store}/${hit.file}#t=${moment.second}`;
  $("player").showModal();
  video.play().catch(() => {}); // the browser may require a click on its own play button
}

function setFile(upload) {
  if (upload && upload.size > MAX_BYTES) {
    showMessage("The file is larger than 20 MB.", true);
    return;
  }
  file = upload ?? null;
  $("clear").hidden = !file;
  const prompt = document.createElement("span");
  prompt.innerHTML = "Drop an audio or image file here, or <u>choose one</u>";
  $("drop-text").replaceChildren(file ? `Query with the ${kindOf(file)} file ${file.name}` : prompt);
  if (file || $("text").value.trim()) search();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("file").addEventListener("change", () => setFile($("file").files[0]));
$("clear").addEventListener("click", () => {
  $("file").value = "";
  setFile(null);
  $("text").focus();
});
$("weight").addEventListener("input", () => {
  weight = $("weight").value;
  showWeight(weight);
});
$("by-kind").addEventListener("click", () => {
  weight = null;
  if ($("text").value.trim() || file) search();
  else showWeight(0.2);
  $("weight").focus();
});
$("weight").addEventListener("change", () => {
  if ($("text").value.trim() || file) search();
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
  if (event.dataTransfer.files.length) setFile(event.dataTransfer.files[0]);
});
$("close").addEventListener("click", () => $("player").close());
$("player").addEventListener("close", () => $("video").removeAttribute("src"));
$("video").addEventListener("error", () => {
  if ($("video").getAttribute("src")) {
    $("player-message").textContent = "This browser cannot play the file: its format or codec is not supported, or it was changed or deleted.";
  }
});

const address = new URLSearchParams(location.search);
if (address.has("token")) { // it is in the cookie now; not to be kept in the history
  address.delete("token");
  history.replaceState(null, "", address.size ? `?${address}` : "/");
}
if (address.has("w")) {
  $("weight").value = address.get("w"); // which refuses what is no weight
  weight = $("weight").value;
  showWeight(weight);
}
about().then(() => {
  if (address.get("q")) {
    $("text").value = address.get("q");
    search();
  }
}).catch((error) => showMessage(error.message, true));
