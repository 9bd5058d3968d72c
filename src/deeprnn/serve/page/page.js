"use strict";
// The page of `deeprnn serve`: one file, so that the page loads one script and its security policy names no other. Every
// text of a user or a model is put in by textContent: it is text, whatever it is.

const WORDS = {
  en: {
    tabs: "What to do", write: "Write", score: "Score", language: "中文", token: "Token of this service", enter: "Enter",
    prefix: "Beginning", model: "Model", compare: "Compare both models", temperature: "Temperature",
    length: "Length, in symbols", samples: "Number of texts", penalty: "Repetition penalty", seed: "Seed",
    random: "random", states: "Show the hidden state", start: "Write", stop: "Stop", copy: "Copy", link: "Copy link",
    hint: "Type a beginning, or none, and press Write.", writing: "Writing …", done: "Done: {0} symbols, seed {1}.",
    stopped: "Stopped after {0} symbols.", copied: "Copied.", linked: "The link is copied: it gives the same text.",
    uncopied: "The browser does not let this page copy.",
    scored: "Text to be scored", scorehint: "Paste a text, and see how well the model foresees it.", scoring: "Reading …",
    scoredone: "Done: perplexity {0}.", perplexity: "Perplexity", loss: "Nats per symbol", unknown: "Unknown symbols",
    places: "Most surprising places", inspector: "The symbol that is pointed at",
    text: "Text {0}, {1}", keys: "Text {0}, {1}: arrow keys go through its symbols",
    layer: "Hidden state of layer {0}: a row a unit, a column a symbol", came: "{0}: {1}", expected: "{0} expected ({1})",
    nats: "{0}: {1} nats", newline: "line break", space: "space", gone: "The service does not answer.",
    broken: "The answer broke off.",
  },
  "zh-CN": {
    tabs: "做什么", write: "写作", score: "评分", language: "English", token: "本服务的令牌", enter: "进入",
    prefix: "开头", model: "模型", compare: "并排比较两个模型", temperature: "温度",
    length: "长度（符号数）", samples: "文本数量", penalty: "重复惩罚", seed: "随机种子",
    random: "随机", states: "显示隐藏状态", start: "写作", stop: "停止", copy: "复制", link: "复制链接",
    hint: "输入开头（也可留空），然后按“写作”。", writing: "正在写……", done: "完成：{0} 个符号，种子 {1}。",
    stopped: "写了 {0} 个符号后停止。", copied: "已复制。", linked: "链接已复制：打开它会得到同样的文本。",
    uncopied: "浏览器不允许本页复制。",
    scored: "要评分的文本", scorehint: "粘贴一段文本，看看模型能预料到多少。", scoring: "正在读……",
    scoredone: "完成：困惑度 {0}。", perplexity: "困惑度", loss: "每个符号的奈特数", unknown: "未知符号",
    places: "最出乎意料的地方", inspector: "所指的符号",
    text: "文本 {0}，{1}", keys: "文本 {0}，{1}：用方向键逐个查看符号",
    layer: "第 {0} 层的隐藏状态：每行一个单元，每列一个符号", came: "{0}：{1}", expected: "预期为 {0}（{1}）",
    nats: "{0}：{1} 奈特", newline: "换行", space: "空格", gone: "服务没有应答。",
    broken: "应答中断了。",
  },
};
const SLIDERS = ["temperature", "length", "samples", "repetition_penalty"];
const DIGITS = { temperature: 2, repetition_penalty: 1 };
const $ = (id) => document.getElementById(id);
let language = "en";
let running = null; // the AbortController of what is being written
let scoring = null; // and of what is being scored
let models = [];

function word(key, ...values) {
  return WORDS[language][key].replace(/\{(\d)\}/g, (place, i) => values[i] ?? place);
}

function element(name, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = language;
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = word(each.dataset.text);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", word(each.dataset.label));
  $("seed").placeholder = word("random");
  $("language").textContent = word("language");
  $("language").lang = language === "en" ? "zh-CN" : "en";
}

function say(id, text, bad = false) {
  const line = $(id);
  delete line.dataset.text; // what it says now is not a label
  line.textContent = text;
  line.classList.toggle("bad", bad);
}

// The service

async function ask(path, fields, signal) {
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  if (fields) headers["Content-Type"] = "application/json";
  const options = { headers, signal, ...(fields && { method: "POST", body: JSON.stringify(fields) }) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(word("gone"));
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    $("key").hidden = false;
    $("token").focus();
  }
  const document_ = await answer.json().catch(() => null);
  throw new Error(document_?.error?.message ?? `${answer.status} ${answer.statusText}`);
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

// Symbols: shaded, and inspected by mouse, finger or arrow keys

const shade = (probability) => Math.min(6, Math.floor(-Math.log2(Math.max(probability, 1e-9)) / 1.2));
const percent = (value) => `${(value * 100).toFixed(value < 0.0995 ? 1 : 0)} %`;
const visible = (symbol) => (symbol === "\n" ? `↵ ${word("newline")}` : symbol === " " ? `␣ ${word("space")}` : symbol);

function inspectable(text, shown) {
  let at = -1;
  const point = (i) => {
    const spans = text.querySelectorAll("i");
    if (!spans.length) return;
    spans[at]?.classList.remove("at");
    at = Math.max(0, Math.min(i, spans.length - 1));
    spans[at].classList.add("at");
    if (document.activeElement === text) spans[at].scrollIntoView({ block: "nearest" });
    shown(at);
  };
  const over = (event) => {
    if (event.target.tagName === "I") point([...text.querySelectorAll("i")].indexOf(event.target));
  };
  const leave = () => {
    text.querySelector(".at")?.classList.remove("at");
    $("inspector").hidden = true;
  };
  text.addEventListener("pointerover", over);
  text.addEventListener("click", over);
  text.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && document.activeElement !== text && leave());
  text.addEventListener("blur", leave);
  text.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      point(steps[event.key]);
    } else if (event.key === "Escape") leave();
  });
  return point;
}

function inspect(symbol, title) {
  const inspector = $("inspector");
  const rows = (symbol.likeliest ?? []).map(([text, share]) =>
    element("li", { className: text === symbol.token ? "chosen" : "" },
      element("span", { text: visible(text) }),
      element("meter", { min: 0, max: 1, value: share, ariaLabel: percent(share) }),
      element("span", { text: percent(share) })));
  inspector.replaceChildren(element("p", { text: title }), element("ol", {}, ...rows));
  inspector.hidden = false;
}

// Writing

class Text {
  constructor(model, index, prefix, options) {
    this.symbols = [];
    this.waiting = [];
    this.strips = null;
    this.length = options.length;
    const title = word("text", index + 1, model);
    this.body = element("div", { className: "text", tabIndex: 0 });
    this.body.setAttribute("role", "group");
    this.body.setAttribute("aria-label", word("keys", index + 1, model));
    if (prefix) this.body.append(element("span", { className: "given", text: prefix }));
    this.card = element("article", {}, element("h2", { text: title }), this.body);
    $("texts").append(this.card);
    inspectable(this.body, (i) => {
      const symbol = this.symbols[i];
      inspect(symbol, word("came", visible(symbol.token), percent(symbol.probability)));
    });
  }

  add(line) {
    line.token = line.text.trimStart() || line.text;
    this.symbols.push(line);
    if (!this.waiting.length) requestAnimationFrame(() => this.draw());
    this.waiting.push(line);
  }

  draw() {
    const spans = this.waiting.map((line) => element("i", { className: `s${shade(line.probability)}`, text: line.text }));
    this.body.append(...spans);
    const from = this.symbols.length - this.waiting.length;
    this.waiting.forEach((line, i) => line.state && this.paint(from + i, line.state));
    this.waiting = [];
  }

  paint(column, state) {
    this.strips ??= state.map((units, layer) => {
      const canvas = element("canvas", { width: this.length, height: units.length });
      canvas.style.width = `${this.length * 2}px`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", word("layer", layer + 1));
      const scroller = element("div", { tabIndex: 0 }, canvas);
      scroller.setAttribute("role", "group");
      scroller.setAttribute("aria-label", word("layer", layer + 1));
      this.card.append(element("figure", { className: "strip" },
        element("figcaption", { text: word("layer", layer + 1) }), scroller));
      return { canvas, scroller, pen: canvas.getContext("2d") };
    });
    state.forEach((units, layer) => {
      const { pen, scroller, canvas } = this.strips[layer];
      const pixels = pen.createImageData(1, units.length);
      units.forEach((value, unit) => {
        const [red, green, blue] = value > 0 ? [217, 95, 30] : [20, 125, 140];
        pixels.data.set([red, green, blue, Math.min(255, Math.abs(value) * 2.55)], unit * 4);
      });
      pen.putImageData(pixels, column, 0);
      const edge = (column / this.length) * canvas.clientWidth;
      if (edge > scroller.scrollLeft + scroller.clientWidth - 8) scroller.scrollLeft = edge - scroller.clientWidth / 2;
    });
  }

  get whole() {
    return this.body.textContent;
  }
}

let texts = [];

function settings() {
  const values = Object.fromEntries(SLIDERS.map((name) => [name, Number($(name).value)]));
  const seed = $("seed").value.trim();
  return { prefix: $("prefix").value, ...values, ...(/^\d{1,15}$/.test(seed) && { seed: Number(seed) }) };
}

async function write() {
  stop();
  const mine = (running = new AbortController());
  const asked = settings();
  asked.seed ??= Math.floor(Math.random() * 2 ** 32);
  const names = $("compare").checked ? models : [$("model").value];
  texts = [];
  $("texts").replaceChildren();
  $("inspector").hidden = true;
  busy(true);
  say("status", word("writing"));
  remember(asked);
  const wanted = { ...asked, stream: true, details: true, states: $("states").checked };
  const results = await Promise.allSettled(names.map((name) => follow(name, wanted, mine.signal)));
  if (running !== mine) return; // another one has begun
  running = null;
  busy(false);
  const wrong = results.find((each) => each.status === "rejected" && each.reason.name !== "AbortError");
  const made = texts.reduce((sum, text) => sum + text.symbols.length, 0);
  if (wrong) say("status", wrong.reason.message, true);
  else if (mine.signal.aborted) say("status", word("stopped", made));
  else say("status", word("done", made, asked.seed));
}

async function follow(model, wanted, signal) {
  const answer = await ask("v1/generate", { ...wanted, model }, signal);
  const mine = Array.from({ length: wanted.samples }, (_, i) => new Text(model, i, wanted.prefix, wanted));
  texts.push(...mine);
  $("copy").disabled = $("link").disabled = false;
  let whole = false;
  for await (const line of lines(answer)) {
    if (line.error) throw new Error(line.error.message);
    if (line.text !== undefined) mine[line.index].add(line);
    whole ||= line.done === true;
  }
  if (!whole) throw new Error(word("broken"));
}

function stop() {
  running?.abort();
}

function busy(is) {
  $("stop").disabled = !is;
  for (const text of $("texts").children) text.setAttribute("aria-busy", is);
}

async function copy(text, message) {
  try {
    await navigator.clipboard.writeText(text);
    say("status", word(message));
  } catch {
    say("status", word("uncopied"), true);
  }
}

// The address

function remember(asked) {
  const kept = { ...asked, model: $("model").value, language };
  if ($("compare").checked) kept.compare = 1;
  if ($("states").checked) kept.states = 1;
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const name of ["prefix", "seed", ...SLIDERS]) if (kept.has(name)) $(name).value = kept.get(name);
  for (const name of ["compare", "states"]) $(name).checked = kept.has(name);
  if (models.includes(kept.get("model"))) $("model").value = kept.get("model");
  show();
  return kept;
}

function show() {
  for (const name of SLIDERS) {
    document.querySelector(`output[for="${name}"]`).textContent = Number($(name).value).toFixed(DIGITS[name] ?? 0);
  }
}

// Scoring

async function score() {
  $("scores").replaceChildren();
  say("score-status", word("scoring"));
  scoring?.abort();
  const mine = (scoring = new AbortController());
  const answer = await ask("v1/score", { text: $("scored").value, model: $("score-model").value }, mine.signal);
  const found = await answer.json();
  if (scoring !== mine) return; // another one has begun
  const joined = found.unit === "word" ? " " : "";
  const text = element("div", { className: "text", tabIndex: 0 });
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", word("keys", 1, found.model));
  found.symbols.forEach((symbol, i) => {
    const loss = found.losses[i];
    text.append(element("i", { className: loss === null ? "" : `s${shade(Math.exp(-loss))}`, text: symbol }), joined);
  });
  const about = new Map(found.places.map((place) => [place.position, place]));
  const point = inspectable(text, (i) => {
    const loss = found.losses[i];
    const place = about.get(i);
    const title = loss === null ? visible(found.symbols[i]) : word("nats", visible(found.symbols[i]), loss.toFixed(2));
    inspect({ likeliest: place && [[place.expected, place.probability]] }, title);
  });
  const figure = (name, value) => element("div", {}, element("dt", { text: word(name) }), element("dd", { text: value }));
  const places = found.places.map((place) => {
    const symbol = found.symbols[place.position];
    const button = element("button", { type: "button" }, element("span", { text: place.loss.toFixed(2) }),
      element("span", {}, element("b", { text: visible(symbol) }),
        ` ${word("expected", visible(place.expected), percent(place.probability))}`));
    button.addEventListener("click", () => {
      text.focus();
      point(place.position);
    });
    return element("li", {}, button);
  });
  $("scores").replaceChildren(
    element("article", {},
      element("dl", {}, figure("perplexity", found.perplexity.toPrecision(4)), figure("loss", found.loss.toFixed(3)),
        figure("unknown", found.unknown)), text),
    element("article", {}, element("h2", { text: word("places") }), element("ol", { className: "places" }, ...places)));
  say("score-status", word("scoredone", found.perplexity.toPrecision(4)));
}

// Everything together

function choose(tab) {
  for (const each of document.querySelectorAll('[role="tab"]')) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  $("inspector").hidden = true;
}

async function begin() {
  const answer = await ask("v1/models");
  models = (await answer.json()).data.map((each) => each.id);
  for (const select of [$("model"), $("score-model")]) {
    select.replaceChildren(...models.map((name) => element("option", { value: name, text: name })));
  }
  $("compare-field").hidden = models.length < 2;
  $("key").hidden = true;
  $("key-status").textContent = "";
  if (recall().has("seed")) await write(); // somebody's link: it shows their text
}

function attempt(action, status) {
  return (event) => {
    event?.preventDefault();
    Promise.resolve(action()).catch((error) => {
      if (error.name === "AbortError") return;
      if ($("key").hidden) say(status, error.message, true);
      else if (sessionStorage.getItem("token")) say("key-status", error.message, true); // else nobody has tried yet
    });
  };
}

addEventListener("DOMContentLoaded", () => {
  const kept = new URLSearchParams(location.hash.slice(1)).get("language");
  const own = kept ?? localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh-CN" : "en");
  speak(own in WORDS ? own : "en");
  show();
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const next = tabs[(i + 1) % tabs.length];
      choose(next);
      next.focus();
    });
  });
  $("language").addEventListener("click", () => {
    speak(language === "en" ? "zh-CN" : "en");
    localStorage.setItem("language", language);
  });
  for (const name of SLIDERS) $(name).addEventListener("input", show);
  $("settings").addEventListener("submit", attempt(write, "status"));
  $("scoring").addEventListener("submit", attempt(score, "score-status"));
  $("key").addEventListener("submit", attempt(() => {
    sessionStorage.setItem("token", $("token").value.trim());
    return begin();
  }, "status"));
  $("stop").addEventListener("click", stop);
  $("copy").addEventListener("click", () => copy(texts.map((text) => text.whole).join("\n\n"), "copied"));
  $("link").addEventListener("click", () => copy(location.href, "linked"));
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.target.closest("form")?.requestSubmit();
    } else if (event.key === "Escape" && running) stop();
  });
  addEventListener("hashchange", attempt(begin, "status"));
  attempt(begin, "status")();
});
