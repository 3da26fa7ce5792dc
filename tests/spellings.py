"""How code spells a value: each with a secret that looks like nothing but one, or without."""

SECRET, OTHER = "Zx7qW9vKp2mR", "Qm4tY8nLc3wD"  # {S} and {T} below

KEYS = (
    "password PASSWORD db_password dbPassword DB_PASSWORD api_key apiKey API_KEY secret client_secret access_token "
    "GITHUB_TOKEN passwd pwd passphrase secret_key aws_secret_access_key private_key"
).split()

PREFIXES = " b B u r f rb Rb bR br fr F U t L u8 @ $ $@ c cr N E x".split(" ")
QUOTES = ('"', "'", '"""', "'''", "`")

# {k}: each of the keys
ASSIGNED = (
    *("{k}={S}", '{k} = "{S}"', "{k}: {S}", '{k}: "{S}"', "export {k}={S}", "set {k}={S}", '$env:{k} = "{S}"'),
    *('${k} = "{S}";', '{k} := "{S}"', "let {k} = `{S}`;", "const {k} = `{S}`", 'String {k} = "{S}";'),
    *('os.environ["{k}"] = "{S}"', "os.environ['{k}'] = b'{S}'", 'config.{k} = "{S}"', 'self.{k} = r"{S}"'),
    *('f({k}="{S}")', 'f({k}=b"{S}")', '{k}="{S}" cmd', "--{k}={S}", "--{k} {S}", "--{k} b'{S}'", "{k}=$'{S}'"),
    *('{k} = ("{S}")', '{k} = (\n  "{S}"\n)', '{k} = "" "{S}"', '{k} = "ab" "{S}"', '{k} = b"ab" b"{S}"'),
    *('{k} = "ab" \\\n "{S}"', '{k} = "ab" + "{S}"', '{k} = "a\\"{S}"', "{k} = 'a\\'{S}'", '{k} = """\n{S}\n"""'),
    *("{k} = '''{S}'''", "{k}: !!str {S}", "{k} ?= {S}", '{k}=\\"{S}\\"', '{k} = bytes("{S}", "utf8")'),
    *('{k} = b64decode("{S}")', '{k} = str("{S}")', '{k} = os.getenv("X", "{S}")', "@{k} = '{S}'"),
    *('{k} = os.environ.get("{k}", "{S}")', '{k} = process.env.X || "{S}"', '{k} = x if y else "{S}"'),
    *('{k} => "{S}"', "?{k}={S}&a=b", '{k}="{S}', '{k}: "{S}",', "{k}: `{S}`,", "ENV {k}={S}", "<{k}>{S}</{k}>"),
    *('{k} = ["x", "{S}"]', '{k} = {{"a": "{S}"}}', '{k}: Final = "{S}"', '{k}: str = "{S}"', '{k}: bytes = b"{S}"'),
    *('{k}: string = "{S}"', '{k}: &str = "{S}";', 'static {k}: &\'static str = "{S}";', 'char {k}[] = "{S}";'),
    *('char *{k} = "{S}";', 'def f({k}: str | None = "{S}") -> None: ...', "{k}\t=\t'{S}'", '{k}\u00a0=\u00a0"{S}"'),
    *('{k}=\n"{S}"', '{k} = f(x, y("{S}"))', '{k} = x or "{S}"', '{k}: x || "{S}"'),
    '{k} = "ab" if x == 1 else "{S}"',
    *("{k} : '{S}'", "{k}     : {S}\nuser  : ann", '"{k}" = "{S}"', "'{k}' = '{S}'", '{{\\"{k}\\" = \\"{S}\\"}}'),
    *("${{{k}:-{S}}}", "x=${{{k}:={S}}}", "map[{k}:{S}]", "map[user:ann {k}:{S} x:y]", "- name: {k}\n  value: {S}\n"),
    *("name: '{k}'\nvalue: '{S}'", '  - key: {k}\n    value: "{S}"', "a\\n- name: {k}\\n  value: {S}\\n"),
)
MEMBERS = (
    *("'{k}': '{S}'", '"{k}": "{S}"', "\"{k}\" : u'{S}'", "'{k}' => '{S}',", '"{k}" => b"{S}"', '{{"{k}": "{S}"}}'),
    *('{{\\"{k}\\": \\"{S}\\"}}', '"{k}":\n  "{S}"', '"{k}": b"{S}"', '"{k}": ["{S}"]', "{{'{k}': ('{S}',)}}"),
    *("{{'{k}': SecretStr('{S}')}}", '"{k}": """{S}"""', "'{k}': '''{S}'''", "'{k}': os.getenv('K', '{S}')"),
    *('"{k}": x || "{S}"', "'{k}': 'ab' + '{S}'", "{{'{k}': b'ab' b'{S}'}}", "{{'{k}': bytearray(b'{S}')}}"),
    *("{{'{k}': rb\"{S}\"}}", "{{b'{k}': b'{S}'}}", '"{k}": `{S}`', "{{'{k}': {{'x': '{S}'}}}}", '"{k}": {S}'),
    *(
        "{{'{k}': \\\"{S}\\\"}}",
        "'{k}': f('x' 'y', z(['{S}']))",
        "'{k}': 'a' if x else '{S}'",
        "'{k}' => env('X', '{S}')",
    ),
)
# Notations with a form of their own.
NOTED = (
    *("['mysql', '--{k}', '{S}']", "('--{k}', '{S}')", '["mysql", "--{k}", "{S}", "-h"]', '["--{k}",b"{S}"]'),
    *('[["{k}","{S}"]]', "[('{k}', '{S}'), ('b', 1)]", "(('{k}', '{S}'),)", "f([['{k}', b'{S}']])", 'x("{k}", "{S}")'),
    *("{k}: |\n  {S}\nother: x", "{k}: >-\n  some words\n  {S}", "x: y\nENV {k} {S}", 'ENV {k} "{S}"'),
    *('#define {k} "{S}"', "# define {k} {S}", '<{k} type="x">{S}</{k}>', "<{k}><![CDATA[{S}]]></{k}>"),
    *('<add key="{k}" value="{S}"/>', '<input type="text" name="{k}" value="{S}">', "<x:{k}>\n  {S}\n</x:{k}>"),
)
NOTED_ONCE = (
    *(
        "machine x login ann password {S}",
        "machine x\n  login ann\n  password {S}\n",
        '{{"Name": "DB_TOKEN", "Value": "{S}"}} x',
    ),
    *("[('x-api-key', '{S}')]", "(b'x-api-key', b'{S}')", "[[b'cookie', b'sid={S}']]", '["X-Api-Key", "{S}"]'),
    *("CREATE USER x IDENTIFIED BY '{S}'", "ALTER USER x WITH PASSWORD '{S}'", "identified by '{S}'"),
    *('{{"text": "password: |\\n  {S}\\nx: y"}}', "FROM x\\nENV TOKEN {S}\\n", "(u'X-Api-Key', '{S}',)"),
)
# In a text that was quoted once more.
QUOTED_AGAIN = (
    *("sh -c 'f(password='\\''{S}'\\'')'", '"password\\t=\\t\\"{S}\\""', '"password=\\n\\"{S}\\""'),
    *("\"{{'password': '{S}\\\\'{T}'}}\"", "\"password = 'a\\\\'{S}'\""),
)
# Neither part of the secret may be left.
PARTS = (
    *('"password": f("{S}") y', 'password = x.y("{S}") z'),
    *('password = "{S}" "{T}"', "password = '{S}' '{T}'", 'password = "{S}"\n    "{T}"', 'password = "{S}" + "{T}"'),
    *('password = "{S}" . "{T}";', 'password={S}"{T}"', 'password="{S}"{T}', "PASSWORD='{S}'\\''{T}'"),
    *('password = "{S}\\"{T}"', "password = '{S}\\'{T}'", "password = '{S}''{T}'", '"password": "{S}\\"{T}"'),
    *("'password': '{S}\\'{T}'", "'password': b'{S}\\'{T}'", '"password": "{S}" "{T}"', "{{'password': '{S}' '{T}'}}"),
    *("{{'password': b'{S}' b'{T}'}}", "'password': r'''{S}'{T}'''", "{{'password': f\"{S}{{x}}{T}\"}}"),
    *("{{'password': ['{S}', b'{T}']}}", 'PASSWORD="{S} {T}"', "password = {S}\\\n{T}", 'password: "{S}\\\n  {T}"'),
    *('password="""{S}\n{T}"""', "password=`{S}${{x}}{T}`", 'echo "{{\\"password\\":\\"{S}\\\\\\"{T}\\"}}"'),
    *(
        "Cookie: a={S}; b={T}",
        'password = ("{S}"\n  "{T}")',
        'password = "{S}" + x + "{T}"',
        '"password": "{S}" || "{T}"',
    ),
    *("login(user='x', password=b'{S}', token=[b'{T}'])", 'password = "{S}" or "{T}"', '"password": "{S}" + x + "{T}"'),
    *('"x = f(password=\\"{S}\\", token=\'{T}\')"', "token = f({{'password': '{S}'}}, password='{T}')"),
    'password = SecretStr("{S}',
    '"password": {S}',
)
# Of several words: nothing that an assignment has in quotes is a sentence, but what says what is to stand there.
PHRASES = (
    *('app_password = "abcd efgh ijkl mnop"', f'password = "{SECRET} long phrase here"'),
    *('password = "correct horse battery staple"', 'secret = "a horse of the battery"', "DB_PASSWORD='x y z staple'"),
    *('password = "12345678"', 'password = ("swordfish")', "secret = ['swordfish']", "'password': ('swordfish',)"),
)
AWS_KEY = "/JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

# Stays as it is, to the letter.
HARMLESS_CODE = (
    *(
        "type={show ? 'password' : 'text'}",
        "x ? 'token' : 'none'",
        "'Authorization': 'Bearer ' + token",
        '"password": {',
    ),
    *(
        '"Authorization": f"Bearer {self.token}"',
        "{'Authorization': `Bearer ${token}`}",
        "a Bearer access token is sent",
    ),
    *(
        "smtp://{user}:{password}@{host}",
        "smtp://$USER:$PASS@host",
        "https://${user}:${pass}@${host}",
        "redis://:***@h",
    ),
    *(
        "x ? password : default1a2",
        "a[0] ? token : next_token2",
        "f(x) ? y.secret : other.value12",
        "password : string1",
    ),
    *("password : at least 8 characters", "- name: max_tokens\n  value: a1b2c3d4", "- name: TOKEN\n  value: $TOKEN1"),
    *("- name: user\n- x: y\n  value: a1b2c3d4", "map[string]password:a1b2c3d4 ", "map[token:4 x:y]", "map[x.token:a]"),
    *("${TOKEN:-$OTHER1}", "${max_tokens:-a1b2c3d4}", "a[1:-b2c3d4]", '"password" = $1', "login ann password required"),
    *(
        "secret: v2beta",
        "token: oauth2",
        "name: TOKEN\nvalue: {{ a1b2c3d4 }}",
        "name: TOKEN, value: a1b2",
        "Value: a1b2c3",
    ),
    *("token_count = 5", "password: str", "def token(self) -> str:", 'secret = os.environ["X"]', "token = tokens[i]"),
    *("token = os.environ['X']", "password = os.getenv('DB_PASSWORD')", "password = getpass.getpass()"),
    *("password = input('Password: ')", "password: Optional[str] = None", "token: str = ''", "secret = null;"),
    *("password: process.env.PASSWORD", "apiKey: process.env.API_KEY,", "let password = req.body.password;"),
    *("password: ${DB_PASSWORD}", "token: ${{ secrets.GITHUB_TOKEN }}", "password?: string", "token: Token"),
    *("'password' => env('DB_PASSWORD'),", "$password = $_POST['password'];", "token, rest = split(x)"),
    *(
        "password = models.CharField(max_length=128)",
        "if token == expected:",
        "password: { type: String, required: true }",
    ),
    *('password = "<your password>"', "def f(password: str, token: bytes = b'') -> None:", "token := lexer.Next()"),
    *("connect(password=cfg['password'])", "print(f'token={token}')", 'f"password={password!r}"', "token = 0x1F"),
    *('"password.label": "Password"', 'password_label = "Password"', "passwordHint: 'At least 8 characters'"),
    *("{'password': str}", "{'password': Optional[bytes]}", "{'token': token}", "{'token': token_count}"),
    *("{'secret': os.environ['X']}", "{\"password\": t('login.password')}", "{'password': b''}", "{'token': u''}"),
    *("'password': f'{x}'", "'password': f\"{cfg.password}\"", "'token': re.compile(r'[a-z]+')", '("token", 5)'),
    *("'token': lambda x: x", "{'token': None, 'n': 'word'}", '"password": b,', '"password": u', "password = b"),
    *("x = {'token': b, 'a': 'z'}", "token = 'a' if b else 'c'", "tok = token or 'default'", "password = rb(x)"),
    *("'secret': config.get('a', 'b'), 'c': 'd'", "'token': data['token'], 'user': 'x'", "'password': _('Password')"),
    *('"cookie": req.headers["cookie"]', "'password' in data and data['x'] == 'y'", "token = buf", "token = f''"),
    *("data['password'] = form['password']", 'data["token"] = data["x"] + data["y"]', "TOKEN = 'token'"),
    *("if 'password' not in d: raise ValueError('no password')", "print('password:', 'ok')", "token: 'string'"),
    *('log("password: " + mask(p) + " done")', "secret = Secret('x')", "token: { type: 'string' }"),
    *('"token": {"type": "string"}', "'password': ['required', 'min:8'],", "'password' => 'required|min:8',"),
    *("password: 'required|string|min:8'", "password = serializers.CharField(write_only=True)", "token := <-ch"),
    *("password = Column(String(64))", "path('password/', view, name='password')", "'password': forms.PasswordInput()"),
    *('"invalid password": AuthenticationError,', "password = lexer.get_token()", "{'Authorization': ...}"),
    *('url = "x?token=" + token + "&x=1"', 'url = "x?token="+token1+"&x=1"', "`token=`,`password=` and `key=`"),
    *('token = re.compile(r"[a-z0-9]{8}")', "password = x.encode('latin-1')", 'token = model("gpt-4o-mini")'),
    *('token = data["a1b2c3d4e5"]', 'token = page.locator("#token1")', "token = x = y"),
    *(
        '["token", "word1234"]',
        "('token', 'word', 'a1b2c3d4')",
        "f('token', 'a', 'b1c2d3e4')",
        '["--tokens-file", "a1b2c3d4"]',
    ),
    *('["password", "a1b2c3d4", "x"]', "x('max_tokens', 'a1b2c3d4')", "('token', 'gpt-4o-mini')", "['--token', x]"),
    *(
        "password: |\n  At least 8 characters",
        "max_tokens: |\n  a1b2c3d4",
        "ENV TOKEN $TOKEN1",
        "the ENV TOKEN a1b2c3d4",
    ),
    *("ENV TOKEN_FILE /run/a1b2c3", "#define TOKEN(x) f(x)", "#define next_token lex1()", "<token>Enter it</tokens>"),
    *("<p>a1b2c3d4</token>", "a1b2c3d4</token>", "<password></password>", "<password><b>a1b2c3d4</b></password>"),
    *(
        '<input name="password" value="required">',
        '<a name="max_tokens" value="a1b2c3d4">',
        "]]></password>",
        "ENV TOKEN ",
    ),
    *(
        "password 'of ann'",
        "PASSWORD 'required'",
        "verified by 'a1b2c3d4'",
        '<a name="password" value="">',
        "PASSWORD '",
    ),
    *("token = a || b { 'a1b2c3d4e5' }", "{'token': f('x'), 'tokens': 5}", "{'token': f(y), 'password': ''}"),
    *("token = x { y('a1b2c3d4e5') }", "token = lexer.next_token() # 'a1b2c3d4e5'"),
    *('{"text": "password=", "a1b2c3": "d4e5f6g7"}', "curl -d 'token=' -H 'x: y1z2a3b4'", "token = (x, 'unclosed"),
    *("password = f('a b c", "max_tokens = f('a1b2c3d4e5')", "max_tokens = ( 'a1b2c3d4e5')"),
    *('"token": \\x', "token ? token.kind : null", "token || 'none'", "token = a ? b : 'c'"),
)


def filled(form: str, key: str = "") -> str:
    """The text that the form makes of the key and the secret."""
    text = form.replace("{{", "{").replace("}}", "}").replace("{k}", key)
    return text.replace("{S}", SECRET).replace("{T}", OTHER)
