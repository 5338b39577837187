#!/usr/bin/env python3
"""A token server as the distribution project's registry expects it (its spec/auth/token.md and jwt.md).

usage: token_server.py FOLDER PORT tls|plain
FOLDER holds token.key and token.crt (sign the tokens) and server.crt and server.key (TLS).
GET /token?service=S&scope=repository:NAME:pull,push - with the account of the environment everything that is asked for,
anonymous only pull on public/*. POST /token with grant_type=refresh_token and the refresh token "identity-" + password
gives what the account gets (its spec/auth/oauth.md). Only the standard library and the openssl command, so that a bare machine runs it.
"""
import base64
import hashlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.parse

FOLDER, PORT, SCHEME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ACCOUNT = f"{os.environ['REGISTRY_USER']}:{os.environ['REGISTRY_PASSWORD']}"
LIFETIME = 300


def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_id():
    """libtrust's name of a key: base32 of the first 30 bytes of SHA-256 over the DER public key, in groups of four."""
    public = openssl("rsa", "-in", f"{FOLDER}/token.key", "-pubout", "-outform", "DER")
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return ":".join(text[i : i + 4] for i in range(0, len(text), 4))


with open(f"{FOLDER}/token.crt") as file:
    CERTIFICATE = base64.b64encode(ssl.PEM_cert_to_DER_cert(file.read())).decode()
HEADER = base64url(json.dumps({"typ": "JWT", "alg": "RS256", "kid": key_id(), "x5c": [CERTIFICATE]}).encode())


def sign(claims):
    text = f"{HEADER}.{base64url(json.dumps(claims).encode())}"
    return f"{text}.{base64url(openssl('dgst', '-sha256', '-sign', f'{FOLDER}/token.key', stdin=text.encode()))}"


def granted(scopes, known):
    access = []
    for scope in scopes:
        kind, rest = scope.split(":", 1)
        name, actions = rest.rsplit(":", 1)
        actions = [action for action in actions.split(",") if known or (action == "pull" and name.startswith("public/"))]
        if actions:
            access.append({"type": kind, "name": name, "actions": actions})
    return access


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        authorization = self.headers.get("Authorization", "")
        known = authorization.startswith("Basic ")
        if known and base64.b64decode(authorization[6:]).decode() != ACCOUNT:
            self.answer(401, {"details": "incorrect username or password"}, WWW_Authenticate='Basic realm="siforge"')
            return
        self.grant(known, query)

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        refresh = f"identity-{os.environ['REGISTRY_PASSWORD']}"
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [refresh]:
            self.answer(401, {"error": "invalid_grant", "error_description": "refresh token is not valid"})
            return
        self.grant(True, form)

    def grant(self, known, query):
        now = int(time.time())
        token = sign({
            "iss": "siforge-test", "sub": "ci" if known else "", "aud": query.get("service", ["siforge"])[0],
            "exp": now + LIFETIME, "nbf": now - 5, "iat": now, "jti": os.urandom(8).hex(),
            "access": granted(" ".join(query.get("scope", [])).split(), known),
        })
        self.answer(200, {"token": token, "access_token": token, "expires_in": LIFETIME,
                          "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))})


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
if SCHEME == "tls":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/server.crt", f"{FOLDER}/server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
