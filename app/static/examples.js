/** Example texts: each has one or two texts, or bytes. */

const latin1 = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));

export const EXAMPLES = {
  sentence: ["The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy cat."],
  order: [
    "In the beginning God created the heaven and the earth.",
    "The and earth heaven the created God beginning the in.",
  ],
  scripts: ["Hello, world. Grüße aus Köln. Привет, мир. Γειά σου Κόσμε. שלום עולם. नमस्ते दुनिया। 你好，世界。👩‍👩‍👧 👋🏽"],
  code: ["def mean(values):\n    if not values:\n        return None\n    return sum(values) / len(values)\n"],
  bytes: [latin1("Gr\xfc\xdfe aus K\xf6ln, in Latin-1.\x00\xff\xfe\n")],
};
