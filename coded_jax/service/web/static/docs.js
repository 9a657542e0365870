// The description asks for the token, too, where there is one.
let bearer = sessionStorage.getItem("token");
async function start() {
  const headers = () => (bearer ? { Authorization: `Bearer ${bearer}` } : {});
  let answer = await fetch("openapi.json", { headers: headers() });
  if (answer.status === 401 && (bearer = prompt("Token"))) {
    sessionStorage.setItem("token", bearer);
    answer = await fetch("openapi.json", { headers: headers() });
  }
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#page",
    validatorUrl: null, // no other host is asked
    requestInterceptor: (request) => {
      request.headers = { ...headers(), ...request.headers };
      return request;
    },
  });
}
start();
