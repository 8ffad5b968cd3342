// What is indexed, and the start page's example queries.
import { $, showMessage } from "./results.js";

const item = (content) => {
  const node = document.createElement("li");
  node.append(content);
  return node;
};

const fetched = async (address) => {
  const response = await fetch(address);
  const result = await response.json();
  if (!response.ok) throw new Error(result.detail);
  return result;
};

// Shows what is indexed.
export async function showAbout() {
  const index = await fetched("/api/about");
  $("about").textContent = `${index.moments.toLocaleString()} moments of ${index.videos.toLocaleString()} videos in ${index.folder}`;
  showProblems(index.problems, index.further_problems);
  if (!index.moments) showMessage("Nothing is indexed yet: run `trimodal index FOLDER`, then reload this page.");
}

function showProblems(problems, further) {
  const lines = problems.map(({ path, problem }) => item(`${path}: ${problem}`));
  if (further) lines.push(item(`and ${further.toLocaleString()} more`));
  $("problems").hidden = !lines.length;
  $("problems").querySelector("ul").replaceChildren(...lines);
  $("problems").querySelector("summary").textContent = `${(problems.length + further).toLocaleString()} with problems`;
}

// Shows the examples; `ask` is called with the one that is chosen.
export async function showExamples(ask) {
  const queries = await fetched("/api/examples");
  const buttons = queries.map((query) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = query;
    button.addEventListener("click", () => ask(query));
    return item(button);
  });
  $("examples").replaceChildren(...buttons);
}
