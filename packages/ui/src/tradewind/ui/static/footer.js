// SPDX-License-Identifier: Apache-2.0
// Why each part is as it is: docs/index.md of tradewind-ui. Comments count: 2 KB at most, compressed.
const NAV = "[data-testid=nav-sidebar]";
const MAIN = "[data-testid=main-content]";

// A strict CSP refuses <style>.
const sheet = (css) => {
  const made = new CSSStyleSheet();
  made.replaceSync(css);
  return made;
};

// Nothing ends up under the bar.
const page = sheet(`
${MAIN}{margin-bottom:1.75rem}
#root>div:not(:has(${MAIN})){padding-bottom:2.75rem}
#root~tradewind-footer{height:0;--text:4rem}
.light tradewind-footer{color-scheme:light}
.dark tradewind-footer{color-scheme:dark}
@media print{tradewind-footer{display:none}}`);

// --nav: the sidebar's width; --text: where the words start before it is there.
const bar = sheet(`
:host{display:block;height:1.75rem;color-scheme:light dark}
footer{position:fixed;z-index:5;bottom:0;inset-inline:var(--nav,0px) 0;box-sizing:border-box;height:1.75rem;
padding-inline:calc(max(var(--text,0px) - var(--nav,0px),0px) + .75rem) .75rem;
overflow:auto hidden;scrollbar-width:none;white-space:nowrap;font:.75rem/1.6875rem system-ui,sans-serif;
border-top:1px solid light-dark(#e2e8f0,#334155);background:light-dark(#f8fafc,#0f172a);
color:light-dark(#334155,#cbd5e1)}
footer,div{display:flex;gap:.75rem}
div{margin-inline-end:auto}
a,span{color:inherit;unicode-bidi:plaintext}
a:focus-visible{outline:2px solid;outline-offset:-2px}`);

const add = (parent, tag, properties) =>
  Object.assign(parent.appendChild(document.createElement(tag)), properties);

class TradewindFooter extends HTMLElement {
  connectedCallback() {
    // Inside another page of this server, that one has the footer.
    if (this.shadowRoot || window.frameElement) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [bar];
    document.adoptedStyleSheets.push(page);
    const footer = add(root, "footer", { role: "contentinfo" });
    this.facts = add(footer, "div");
    this.show();
    for (const { label, url } of JSON.parse(this.getAttribute("links") ?? "[]")) {
      if (/^https?:/i.test(url))
        add(footer, "a", { textContent: label, href: url, target: "_blank", rel: "noreferrer" });
    }
    // What may follow a login.
    const ask = () => this.refresh();
    for (const event of ["focus", "pageshow", "popstate", "visibilitychange"]) addEventListener(event, ask);
    window.navigation?.addEventListener("navigatesuccess", ask);
    ask();
    this.follow();
  }

  show(...facts) {
    this.facts.replaceChildren();
    for (const textContent of facts.length ? facts : [this.getAttribute("product")])
      if (textContent) add(this.facts, "span", { textContent });
  }

  follow() {
    let nav = null;
    const size = new ResizeObserver(() => this.style.setProperty("--nav", `${nav?.offsetWidth ?? 0}px`));
    const find = () => {
      if (nav?.isConnected) return;
      const found = document.querySelector(NAV);
      if (found === nav) return;
      nav = found;
      size.disconnect();
      size.observe(nav ?? this);
      this.refresh();
    };
    new MutationObserver(find).observe(document.body, { childList: true, subtree: true });
    find();
  }

  async refresh() {
    if (document.hidden || Date.now() < this.next) return;
    this.next = Date.now() + 1000;
    try {
      const response = await fetch(new URL("../api/v1/runtime", import.meta.url));
      if (!response.ok) return this.show();
      const { product, version, ui, airflow, image_tag: tag } = await response.json();
      this.next = Date.now() + 300000;
      this.show(`${product} ${version ?? ui}`, airflow && `Airflow ${airflow}`, tag && `Image ${tag}`);
    } catch {
      // Offline: what is shown stays.
    }
  }
}

if (!customElements.get("tradewind-footer")) customElements.define("tradewind-footer", TradewindFooter);
