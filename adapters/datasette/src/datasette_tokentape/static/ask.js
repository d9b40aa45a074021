/** Asks the API, at an element's `data-api`, about the tape of its `data-query`. */
export async function ask({ dataset }, path, parameters) {
  const query = new URLSearchParams(dataset.query);
  for (const [name, value] of Object.entries(parameters ?? {})) query.set(name, value);
  const answer = await fetch(`${dataset.api}${path}?${query}`).catch(() => {
    throw new Error("the server cannot be reached");
  });
  if (answer.ok) return answer.json();
  const { detail } = await answer.json().catch(() => ({}));
  throw new Error(`the API answered ${answer.status}${detail ? ` (${detail.replace(/\.$/, "")})` : ""}`);
}
