"""Secrets of every kind that is masked, made up for tests."""

from __future__ import annotations

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAxu7P0000\nq2W9/+abcdEFGH==\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"
SECRETS = {
    "openai": ("api_key", "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x"),
    "anthropic": ("api_key", "sk-ant-api03-Ab3dEf6hIj9lMn2p_Qr5t"),
    "short": ("api_key", "sk-0123456789abcdef"),
    "aws": ("api_key", "AKIAIOSFODNN7EXAMPLE"),
    "google": ("api_key", "AIzaSyA0123456789abcdefghij"),
    "google access": ("api_key", "ya29.a0AfB_byC0123456789abcdef"),
    "github": ("api_key", "ghp_0123456789abcdefABCDEF"),
    "github fine-grained": ("api_key", "github_pat_11ABCDEFG0123456789_abcdef"),
    "slack": ("api_key", "xoxb-123456789012-abcdefGHIJ"),
    "hugging face": ("api_key", "hf_abcdefghijklmnopqrst"),
    "groq": ("api_key", "gsk_abcdefghijklmnop1234"),
    "gitlab": ("api_key", "glpat-abcdefghij0123456789"),
    "bearer": ("bearer_token", "Bearer 9f8e7d6c5b4a.~+/="),
    "jwt": ("jwt", JWT),
    "pem": ("private_key", PEM),
    "connection": ("connection_string", "app:p@ss:w0rd@db.example:5432"),
    "card": ("card_number", "4539578763621486"),
    "card in groups": ("card_number", "5425 2334 3010 9903"),
    "amex": ("card_number", "3782-822463-10005"),
}
BEFORE = {"connection": "Use postgres://"}
# Kinds that are masked where they are asked for.
OPTIONAL_SECRETS = {
    "mail": ("email", "jane.doe+news@mail.example.co.uk"),
    "mail in another alphabet": ("email", "jörg@büro.example"),
    "international": ("phone", "+49 (170) 123-45 67"),
    "from abroad": ("phone", "0049 170 1234567"),
    "in one": ("phone", "+491701234567"),
    "american": ("phone", "(555) 123-4567"),
    "american in dots": ("phone", "555.123.4567"),
    "national": ("phone", "030/1234567"),
}
