// The conformance audit of GraphQL over HTTP; prints what did not pass.
import { auditServer } from 'graphql-http';

const { URL: url, KEY: key } = process.env;
const results = await auditServer({
  url,
  fetchFn: (where, init = {}) =>
    fetch(where, { ...init, headers: { ...init.headers, 'x-api-key': key } }),
});
const failed = results
  .filter(({ status }) => status !== 'ok')
  .map(({ id, name, status, reason }) => ({ id, name, status, reason }));
console.log(JSON.stringify({ total: results.length, failed }));
process.exit(0);
