// Reads an AsyncAPI document with the parser of those who make AsyncAPI; says what is wrong with it, one line each.
'use strict';

const { Parser } = require('@asyncapi/parser');
const { readFileSync } = require('node:fs');

const WARNING = 1; // 0 is an error; above are hints, as that there is a newer version

new Parser().validate(readFileSync(process.argv[2], 'utf8')).then((found) => {
  for (const { severity, message, path } of found) {
    if (severity <= WARNING) console.log(`${path.join('/')}: ${message}`);
  }
});
