// Verifies a token as a Node service would: node verify_ear.mjs JWKS_URL ISSUER AUDIENCE < token
import { readFileSync } from "node:fs";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [jwksUrl, issuer, audience] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(jwksUrl));
try {
  const { payload, protectedHeader } = await jwtVerify(readFileSync(0, "utf8"), keys, { issuer, audience });
  console.log(JSON.stringify({ payload, protectedHeader }));
} catch (error) {
  console.log(JSON.stringify({ refused: error.code }));
}
