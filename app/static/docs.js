// Shows the description of the API with Swagger UI.

// Swagger UI writes HTML, which it has cleaned with DOMPurify. The policy of the page refuses inline
// scripts and handlers in it all the same.
window.trustedTypes?.createPolicy("default", { createHTML: (html) => html });

const place = document.getElementById("swagger-ui");

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.description,
  deepLinking: true,
  // Swagger UI would show a badge of a validator on another server.
  validatorUrl: null,
});
