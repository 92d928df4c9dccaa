import { LIMITS } from "./limits.js";

/** What users and groups may be called, as the server has it. */
const NAME = /^[A-Za-z0-9._@:+|-]{1,128}$/;

/**
 * A name that the server would refuse is the page's mistake: whoever made it hears of it at once.
 * @param {unknown} name @returns {string}
 */
export function checkName(name) {
  if (typeof name === "string" && NAME.test(name)) return name;
  const given = JSON.stringify(name)?.slice(0, 140) ?? typeof name;
  throw new TypeError(`${given} is no name: 1 to 128 of A-Z a-z 0-9 . _ @ : + | -`);
}

/** The text of a message. @param {unknown} body @returns {string} */
export function checkBody(body) {
  if (typeof body !== "string") throw new TypeError("the text of a message is a string");
  if (bytesOf(body) > LIMITS.bodyBytes) {
    throw new RangeError(`the text of a message is at most ${LIMITS.bodyBytes} bytes long`);
  }
  return body;
}

/** As it travels, in bytes. @param {string} text */
export function bytesOf(text) {
  return new TextEncoder().encode(text).length;
}

/**
 * The server's address: absolute, or as a page has it (`/presence/`, `../`). A mere word would be
 * taken for a file beside the page.
 * @param {string | URL} url @returns {URL}
 */
export function checkUrl(url) {
  const text = String(url);
  const parsed = /^(https?:|[./])/i.test(text) ? parse(text) : null;
  if (parsed) return parsed;
  throw new TypeError(`url: ${JSON.stringify(text)} is no address of a server`);
}

/** @param {string} text @returns {URL | null} */
function parse(text) {
  try {
    return new URL(text, document.baseURI);
  } catch {
    return null;
  }
}
