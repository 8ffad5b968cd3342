// The page's only script: asks /api/search, shows moments, plays them.
const $ = (id) => document.getElementById(id);
const MOST_BYTES = 20_000_000;
let file = null; // a sound or a picture that is asked with
let asked = 0; // so that a slow answer does not replace a later one

const clock = (seconds) => {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

const say = (text, bad = false) => {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
};

const kindOf = (given) => {
  if (!given) return "";
  return given.type.startsWith("image/") ? "picture" : "sound";
};

async function about() {
  const answer = await fetch("/api/about");
  const facts = await answer.json();
  const listed = [`${facts.moments.toLocaleString()} moments of ${facts.videos.toLocaleString()} videos in ${facts.folder}`];
  if (facts.problems) listed.push(`${facts.problems} with problems`);
  $("about").textContent = listed.join(", ");
  if (!facts.moments) say("Nothing is indexed yet: run `trimodal index FOLDER`, then start this page again.");
}

async function search() {
  const text = $("text").value.trim();
  if (!text && !file) {
    say("Type a sentence, or give a sound or a picture.");
    return;
  }
  const turn = ++asked;
  const words = new URLSearchParams({ text, kind: kindOf(file), audio_weight: $("weight").value });
  say("Searching …");
  try {
    const answer = await fetch(`/api/search?${words}`, { method: "POST", body: file });
    const found = await answer.json();
    if (turn !== asked) return;
    if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : "This cannot be asked.");
    show(found);
    history.replaceState(null, "", text ? `?${new URLSearchParams({ q: text, w: $("weight").value })}` : "/");
  } catch (error) {
    if (turn !== asked) return;
    $("results").replaceChildren();
    say(error instanceof TypeError ? "The server does not answer. Is `trimodal serve` still running?" : error.message, true);
  }
}

function show({ hits, warnings }) {
  $("results").replaceChildren(...hits.map(card));
  const counted = hits.length ? `${hits.length} videos, the best first.` : "Nothing is indexed.";
  say([counted, ...warnings].join(" "));
}

function card(hit) {
  const made = $("hit").content.cloneNode(true);
  const [best, ...others] = hit.moments;
  const place = `${hit.file}/${best.second}.jpg`;
  const button = made.querySelector(".moment");
  button.setAttribute("aria-label", `Play ${hit.path} at ${clock(best.second)}, score ${best.score.toFixed(2)}`);
  button.addEventListener("click", () => play(hit, best));
  made.querySelector(".thumbnail").src = `/thumbnails/${place}`;
  made.querySelector(".thumbnail").style.setProperty("--aspect", hit.aspect);
  const mel = made.querySelector(".mel");
  const silent = () => {
    const note = document.createElement("span");
    note.className = "silent";
    note.textContent = "no sound here";
    mel.replaceWith(note);
  };
  if (hit.has_audio) {
    mel.addEventListener("error", silent);
    mel.src = `/mels/${place}`;
  } else silent();
  made.querySelector(".score").textContent = best.score.toFixed(2);
  made.querySelector(".path").textContent = `${hit.path} · ${clock(best.second)}`;
  const also = made.querySelector(".others");
  if (others.length) also.append("also at ");
  for (const moment of others) {
    const link = document.createElement("button");
    link.type = "button";
    link.textContent = clock(moment.second);
    link.setAttribute("aria-label", `Play ${hit.path} at ${clock(moment.second)}`);
    link.addEventListener("click", () => play(hit, moment));
    also.append(link);
  }
  return made;
}

function play(hit, moment) {
  const video = $("video");
  $("player-title").textContent = `${hit.path} · ${clock(moment.second)}`;
  $("player-message").textContent = "";
  video.src = `/videos/${hit.file}#t=${moment.second}`;
  $("player").showModal();
  video.play().catch(() => {}); // a browser may want a press on its own button first
}

function take(given) {
  if (given && given.size > MOST_BYTES) {
    say("The file is larger than 20 MB.", true);
    return;
  }
  file = given ?? null;
  $("clear").hidden = !file;
  const invitation = document.createElement("span");
  invitation.innerHTML = "Drop a sound or a picture here, or <u>choose one</u>";
  $("drop-text").replaceChildren(file ? `Asking with the ${kindOf(file)} ${file.name}` : invitation);
  if (file || $("text").value.trim()) search();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("file").addEventListener("change", () => take($("file").files[0]));
$("clear").addEventListener("click", () => {
  $("file").value = "";
  take(null);
  $("text").focus();
});
$("weight").addEventListener("input", () => {
  $("weight-shown").textContent = Number($("weight").value).toFixed(2);
});
$("weight").addEventListener("change", () => {
  if ($("text").value.trim() || file) search();
});
// A file may be dropped anywhere: a page that lets it go by would be left for the file.
let depth = 0;
const mark = (change) => (event) => {
  event.preventDefault();
  depth = Math.max(0, depth + change);
  $("drop").classList.toggle("over", depth > 0);
};
document.addEventListener("dragenter", mark(1));
document.addEventListener("dragleave", mark(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  mark(-depth)(event);
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
$("close").addEventListener("click", () => $("player").close());
$("player").addEventListener("close", () => $("video").removeAttribute("src"));
$("video").addEventListener("error", () => {
  if ($("video").getAttribute("src")) {
    $("player-message").textContent = "This browser cannot play the file; its form or codec is not one of the web's, or it is gone.";
  }
});

const given = new URLSearchParams(location.search);
if (given.has("w")) $("weight").value = given.get("w");
$("weight-shown").textContent = Number($("weight").value).toFixed(2);
about().then(() => {
  if (given.get("q")) {
    $("text").value = given.get("q");
    search();
  }
});
