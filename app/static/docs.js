// Shows the description of the API with Swagger UI.

// Swagger UI writes HTML, which it has cleaned with DOMPurify. The policy of the page refuses inline
// scripts and handlers in it all the same.
window.trustedTypes?.createPolicy("default", { createHTML: (html) => html });

for (const origin of document.querySelectorAll("[data-origin]")) origin.textContent = location.origin;

const place = document.getElementById("swagger-ui");

// Swagger UI's own layout has a second <main>, a title and a list of the one server there is.
const ownLayout = ({ React }) => ({
  components: {
    OwnLayout({ getComponent, specSelectors }) {
      const part = (name, isWanted = true) => isWanted && React.createElement(getComponent(name, true), { key: name });
      const isLoaded = specSelectors.loadingStatus() === "success";
      return React.createElement(
        "div",
        { className: "swagger-ui" },
        part("SvgAssets"),
        part("errors"),
        part("AuthorizeBtnContainer", isLoaded && specSelectors.securityDefinitions()),
        part("operations", isLoaded),
      );
    },
  },
});

// Swagger UI leaves fields without names for screen readers.
function nameFields() {
  for (const field of place.querySelectorAll(":is(select, textarea, input):not([aria-label])")) {
    const parameter = field.closest("tr")?.dataset.paramName;
    const fallback = field.tagName === "TEXTAREA" ? "Request body" : "Media type";
    field.setAttribute("aria-label", parameter ?? field.getAttribute("placeholder") ?? fallback);
  }
}
new MutationObserver(nameFields).observe(place, { childList: true, subtree: true });

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.description,
  // Else each route is a link inside a button, which screen readers cannot tell apart.
  deepLinking: false,
  plugins: [ownLayout],
  layout: "OwnLayout",
  // Swagger UI would show a badge of a validator on another server.
  validatorUrl: null,
});
