"""Secrets and what only looks like one: texts and keys."""

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7v\nQIDAQAB+/=\n-----END RSA PRIVATE KEY-----"
CUT_PEM = PEM[:70]
CODE = "Zq3_xTb0uYw-K9aLmN1oPpQr2sVtUcDdEeFfGgHhIiJ"  # as a hub makes them

SECRETS = {  # text → what must be gone
    JWT: JWT,
    PEM: "MIIEowIBAAKCAQEA7v",
    CUT_PEM: "MIIEowIBAAKCAQEA7v",
    "Bearer abc123": "abc123",
    "bearer mF_9.B5f-4.1JqM": "mF_9",
    "Authorization: BEARER opensesame": "opensesame",
    "authorization: bearer opensesame": "opensesame",
    "Bearer%20mF_9B5f": "mF_9B5f",
    "Bearer bearer x1y2z3": "x1y2z3",
    "Bearer token.abc": "token.abc",
    "Basic dXNlcjpwYXNz": "dXNlcjpwYXNz",
    "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==": "QWxhZGRpbjpvcGVuIHNlc2FtZQ",
    "Proxy-Authorization: Basic opensesame": "opensesame",
    "sk-proj-abcDEF0123456789": "abcDEF0123456789",
    "sk-ant-api03-aaaaaaaaaaaaaaaa": "aaaaaaaaaaaaaaaa",
    "sk-abc123": "abc123",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc": "4eC39HqLyjWDarjtT1zdp7dc",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "16C7e42F292c",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a": "16C7e42F292c",
    "github_pat_11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuV": "11ABCDEFG0aBcDeFgHiJkL",
    "glpat-aBcD1234efGH5678ijkl": "aBcD1234efGH5678ijkl",
    "xoxb-123456789012-aBcDeFgH": "123456789012-aBcDeFgH",
    "xoxp-123456789012-aBcDeFgH": "123456789012-aBcDeFgH",
    "AKIAIOSFODNN7EXAMPLE": "IOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE": "IOSFODNN7EXAMPLE",
    "postgres://ann:hunter2@db.example/app": "hunter2",
    "postgres://u:p/w@h": "p/w",
    "postgres://u:p/w@x@h/app": "w@x",
    "amqp://u:p?w#x@h/app": "w#x",
    "redis://:hunter2@localhost:6379/0": "hunter2",
    "https://ann:hun@ter2@example.org/": "ter2",
    '{"password": "hunter2", "id": 1}': "hunter2",
    '{"db": [{"api_key" : "hun\\"ter2"}]}': "ter2",
    '{"credentials": {"user": "ann", "word": "a}hunter2"}, "id": 1}': "hunter2",
    '{"secrets": ["a", ["hunter2"]]}': "hunter2",
    '{"secrets": [[["a"], {"b": 1}], "hunter2"], "id": 1}': "hunter2",
    "{'secrets': [\"a]\", 'hunter2'], 'id': 1}": "hunter2",
    '{"password": 12345678, "id": 1}': "12345678",
    '{"text": "{\\"token\\": \\"hun\\\\\\"ter2\\"}"}': "ter2",
    "{'password': \"it's hunter2\", 'id': 1}": "hunter2",
    "sent {'clientSecret': 'hunter2'} there": "hunter2",
    f"http://127.0.0.1:3141/login/{CODE}": CODE,
    f'{{"link": "login/{CODE}"}}': CODE,
    f"login\\/{CODE}": CODE,
    f"login%2F{CODE}": CODE,
    f"Cookie: a=b; hub_session_3141={CODE}; c=d": CODE,
    f"127.0.0.1 FALSE / FALSE 0 hub_session_3141\t{CODE}": CODE,
    f"hub_session_3141%3D{CODE}": CODE,
    f'[{{"name": "hub_session_3141", "value": "{CODE}"}}]': CODE,
    f'{{"hub_session_3141": "{CODE}"}}': CODE,
}

HARMLESS = (
    "",
    "the bearer of this letter",
    "The bearer can enter",
    "Bearer can enter",
    "A bearer token is missing.",
    "a bearer well-known to us",
    "Basic auth is on",
    "Basic JavaScript training and basic arithmetic",
    "task-force risk-averse disk-usage-of-everything-here",
    "scikit: sk-learn",
    "sk-SK-LukasNeural",
    "sk-SK-ViktoriaNeural and cs-CZ-AntoninNeural",
    "sk-fix-login-page",
    "sk-fix-login-page-2",
    "sk-2026-10-01-report",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9",
    "ghp_",
    "glpat-",
    "xoxo",
    "AKIA",
    "git@github.com:a/b.git",
    "git+ssh://git@github.com:org/repo@v1",
    "https://example.org:8080/a@b:c@d",
    "http://[::1]:3141/x@y",
    "kafka://one:9092,two:9092/topic@x",
    "https://ann@example.org/",
    "token=3 of 4",
    "-----BEGIN",
    "high through",
    'He said "token": ',
    '{"max_tokens": 4096, "tokens": 12, "next_page_token": "p2", "id": "x"}',
    '{"password',
    "it's 'fine': nothing here",
    "tests/web/access/test_login.py",
    "GET /login/zq3xtb0",
    "https://example.org/login/how-to-sign-in-when-the-link-is-used-up-or-too-old",
    "the cookie hub_session_3141 is HttpOnly",
)

SECRET_KEYS = (
    "apiKey api_key API-KEY APIKEY apikey openai_api_key x-api-key OpenAIAPIKey secret SECRET client_secret "
    "clientSecret token github_token GITHUB_TOKEN GITHUBTOKEN accessToken access_token page_access_token refreshToken "
    "password dbPassword DB_PASSWORD passwd authorization Authorization Proxy-Authorization cookie Set-Cookie "
    "privateKey private_key ssh.private.key credential credentials awsCredentials token_ oauth2token p-a-s-s-w-d "
    "password2 password_2 passwords apiKeys api_keys API_KEYS secrets tokens githubTokens cookies token1 pwd PWD "
    "user_pwd passphrase sshPassphrase secretKey secret_key secret-key aws_secret_access_key secretAccessKey "
    "AWS_SECRET_ACCESS_KEY reset_token session_token csrfToken facebook_page_token privateKeys accessTokens2 "
    "dbpassword mypassword userpasswords2 DBpassword rootpasswd keypassphrase openaiapikey sshprivatekey "
    "githubaccesstoken oauthclientsecret awscredentials accessKey access_key aws_access_key storageAccessKeys "
    "accountKey encryptionKey encryption_key dbEncryptionKey masterKey signingKey signing_key passcode userPasscode "
    "passcodes password_confirmation passwordConfirmation passwordConfirm user_password_confirmation "
    "hub_session_3141"
).split()

HARMLESS_KEYS = (
    "max_tokens maxTokens MAX_TOKENS tokens_used total_tokens token_count tokenCount input_tokens output_tokens "
    "next_page_token nextPageToken pageToken nextToken progressToken has_password hasPassword HAS_PASSWORD is_token "
    "requires_password public_key keyboard tokenizer secretary authorized author password_length apiKeyId "
    "cookie_policy id status subtoken key keys 42 _ "
    "cursor_token cursorToken pad_token eos_token bos_token unk_token mask_token sep_token cls_token stop_token "
    "special_tokens additional_special_tokens eosToken PAD_TOKEN "
    "haspassword nopassword requirespassword showpassword hidepassword forgotpassword show_password forgotPassword "
    "accessKeyId access_key_id signingKeyId encryptionKeyId sshKey pass pin auth primaryKey sortKey monkey "
    "passcodeLength confirmation passed bypass compass "
).split(" ")

# What makes a pattern of the wrong form run over its text again and again, if there is much of it.
HOSTILE = (
    *("eyJ", "-eyJ", "eyJaaaaaa.", "\\neyJaaaaa..", f"{JWT} ", "sk-", "-sk-a", "sk-a1b2c3 ", "sk-aaaa-", "k_live_"),
    *("bearer ", "Bearer ", "bearer of ", "bearer abcdef", "basic ", "Basic aaaa ", "Basic YTpi ", "authorization: "),
    *("://a:", "://", "://a:b/", "://a:b@", "://a:b/c@", "a:", "@", "://a:b://", "-----BEGIN A-----", "-----END "),
    *("-----BEGIN ", "AKIA", "AKIAAAAAAAAAAAAA ", "ghp_", "ghp_aaaa ", "github_pat_", "glpat-", "xoxb-", "xox"),
    *("login", "login/", "login/a", "login/A", "login%2F-", "hub_session_1=", "hub_session_1value"),
    *(" ", "A", "-", "_", "\\", '"', "'", '\\"', '":', '"a":', '"token":', '"token":"', '\\"token\\":\\"', '"token":['),
    *('"token":{"a":', '"token":[a', '"token":1,', "'token': 'a', ", '"a" ', '"token"  ', '"\\', '"token\\', "[{"),
    *('"token":"\\', "\u0130", "%20", "bearer%20", "x\n", "b:", '"password":"x" '),
)
