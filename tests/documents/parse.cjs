// Reads AsyncAPI documents with the parser of those who make AsyncAPI; says what is wrong with each, one line each.
'use strict';

const { Parser } = require('@asyncapi/parser');
const { readFileSync } = require('node:fs');

const WARNING = 1; // 0 is an error; above are hints, as that there is a newer version

const parser = new Parser();

(async () => {
  for (const file of process.argv.slice(2)) {
    for (const { severity, message, path } of await parser.validate(readFileSync(file, 'utf8'))) {
      if (severity <= WARNING) console.log(`${file}: ${path.join('/')}: ${message}`);
    }
  }
})();
