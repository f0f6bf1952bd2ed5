/** Holds the API key of this page in its field: not in storage, not in a cookie, not in the URL. */

const field = document.getElementById("key");
const note = document.getElementById("key-note");
const hint = note?.textContent;

/** Whether this service asks for keys. */
export const needsKey = field !== null;

/** The key that was entered; "" for none. */
export const apiKey = () => field?.value.trim() ?? "";

/** Call `react` when another key was entered. */
export const onKeyChange = (react) => field?.addEventListener("change", react);

/** Say beside the field what is wrong with the key, and go there unless the reader types elsewhere. */
export function askForKey({ title, detail }, { isQuiet }) {
  note.textContent = `${title}. ${detail}`;
  note.classList.add("bad");
  if (!isQuiet) field.focus();
}

field?.addEventListener("input", () => {
  note.textContent = hint;
  note.classList.remove("bad");
});

/** A problem about a key in words for people: {title, detail}; null for any other problem. */
export function keyProblem({ type, detail, scope }) {
  if (type === "unauthorized") {
    return apiKey() === ""
      ? { title: "This service needs an API key", detail: "Enter yours in the field “API key”. The operator of the service gives them." }
      : { title: "The API key was refused", detail };
  }
  if (type === "forbidden") {
    const what = scope === "metrics" ? "read the status" : "score texts";
    return { title: `This API key may not ${what}`, detail: `It lacks the scope “${scope}”. Ask the operator for a key that has it.` };
  }
  if (type === "quota_exceeded") {
    return { title: "The quota of this API key is used up", detail: "It fills again with time." };
  }
  return null;
}
