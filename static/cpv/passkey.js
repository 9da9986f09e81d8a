// Passkeys at the desk. A form marked data-passkey stays hidden where the browser has none, and the page works without.
"use strict";

(() => {
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const known = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  async function send(address, token, body) {
    const answer = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify(body),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  }

  async function make(options) {
    const user = { ...options.user, id: bytes(options.user.id) };
    const publicKey = { ...options, user, challenge: bytes(options.challenge) };
    publicKey.excludeCredentials = known(options.excludeCredentials);
    const made = await navigator.credentials.create({ publicKey });
    const { attestationObject, clientDataJSON } = made.response;
    return {
      ...about(made),
      response: {
        attestationObject: text(attestationObject),
        clientDataJSON: text(clientDataJSON),
        transports: made.response.getTransports ? made.response.getTransports() : [],
      },
    };
  }

  async function sign(options) {
    const publicKey = { ...options, challenge: bytes(options.challenge) };
    publicKey.allowCredentials = known(options.allowCredentials);
    const signed = await navigator.credentials.get({ publicKey });
    const { authenticatorData, clientDataJSON, signature, userHandle } = signed.response;
    return {
      ...about(signed),
      response: {
        authenticatorData: text(authenticatorData),
        clientDataJSON: text(clientDataJSON),
        signature: text(signature),
        userHandle: userHandle ? text(userHandle) : null,
      },
    };
  }

  const about = (one) => ({
    id: one.id,
    rawId: text(one.rawId),
    type: one.type,
    clientExtensionResults: one.getClientExtensionResults(),
  });

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (!window.PublicKeyCredential) continue;
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const said = form.querySelector("[role=alert]");
      said.textContent = "";
      const token = form.elements.csrfmiddlewaretoken.value;
      try {
        const options = await send(form.dataset.begin, token, {});
        const enrols = form.dataset.passkey === "enrol";
        const body = enrols ? { name: form.elements.name.value, credential: await make(options) } : await sign(options);
        const { then } = await send(form.dataset.complete, token, body);
        window.location.assign(then);
      } catch (trouble) {
        said.textContent = `That did not work: ${trouble.message}`;
      }
    });
  }
})();
