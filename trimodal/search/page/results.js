// The results: a card a video, and the player.
export const $ = (id) => document.getElementById(id);

export const clock = (seconds) => {
  const total = Math.floor(seconds);
  return `${Math.floor(total / 60)}:${String(total % 60).padStart(2, "0")}`;
};

export const showMessage = (text, bad = false) => {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
};

const imagePart = ({ from_image }) => `image ${from_image.toFixed(2)}`;
const audioPart = ({ from_audio }) => (from_audio === null ? "no audio" : `audio ${from_audio.toFixed(2)}`);
const partsOf = (moment) => `${imagePart(moment)}, ${audioPart(moment)}`;

// A video's card; `full` is the score that fills its bar, `similar` is called with a moment's name.
export function card(hit, store, full, similar) {
  const node = $("hit").content.cloneNode(true);
  const [best, ...others] = hit.moments;
  const moment = `${store}/${hit.file}/${best.second}`;
  const button = node.querySelector(".moment");
  button.setAttribute("aria-label", `Play ${hit.path} at ${clock(best.second)}, score ${best.score.toFixed(2)}`);
  button.addEventListener("click", () => play(hit, best, store));
  node.querySelector(".thumbnail").src = `/thumbnails/${moment}.jpg`;
  node.querySelector(".thumbnail").style.setProperty("--aspect", hit.aspect);
  showSound(node, hit, moment);
  node.querySelector(".score").textContent = best.score.toFixed(2);
  node.querySelector(".path").textContent = `${hit.path} · ${clock(best.second)}`;
  showParts(node, best, full);
  const like = node.querySelector(".similar");
  like.setAttribute("aria-label", `Similar to ${hit.path} at ${clock(best.second)}`);
  like.addEventListener("click", () => similar(moment));
  const also = node.querySelector(".others");
  if (others.length) also.append("also at ");
  for (const other of others) {
    const link = document.createElement("button");
    link.type = "button";
    link.textContent = clock(other.second);
    link.title = `${other.score.toFixed(2)}: ${partsOf(other)}`;
    link.setAttribute("aria-label", `Play ${hit.path} at ${clock(other.second)}, score ${link.title}`);
    link.addEventListener("click", () => play(hit, other, store));
    also.append(link);
  }
  return node;
}

function showParts(node, moment, full) {
  node.querySelector(".image-part").textContent = imagePart(moment);
  node.querySelector(".audio-part").textContent = audioPart(moment);
  const share = (part) => (full > 0 ? `${(100 * Math.max(0, part ?? 0)) / full}%` : "0");
  node.querySelector(".image-share").style.setProperty("width", share(moment.from_image));
  node.querySelector(".audio-share").style.setProperty("width", share(moment.from_audio));
}

function showSound(node, hit, moment) {
  const mel = node.querySelector(".mel");
  const silent = () => {
    const note = document.createElement("span");
    note.className = "silent";
    note.textContent = "no audio";
    mel.replaceWith(note);
  };
  if (!hit.has_audio) {
    silent();
    return;
  }
  mel.addEventListener("error", silent);
  mel.src = `/mels/${moment}.jpg`;
  const where = node.querySelector(".where");
  const heat = node.querySelector(".heat");
  where.hidden = false;
  where.addEventListener("click", () => toggleHeat(where, heat, `/heat_maps/${moment}.png`));
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

$("close").addEventListener("click", () => $("player").close());
$("player").addEventListener("close", () => $("video").removeAttribute("src"));
$("video").addEventListener("error", () => {
  if ($("video").getAttribute("src")) {
    $("player-message").textContent = "This browser cannot play the file: its format or codec is not supported, or it was changed or deleted.";
  }
});
