// Verdicts of the public suite of tests for caches (http-cache-tests): its results come on standard input, and one line of JSON goes out.
// A test passes if it does and all that it depends on do. argv[2]: the folder of the package.

import fs from 'node:fs'
import path from 'node:path'

const { default: suites } = await import(path.join(process.argv[2], 'tests/index.mjs'))
const results = JSON.parse(fs.readFileSync(0))
const tests = new Map(suites.flatMap((suite) => suite.tests).map((test) => [test.id, test]))

const passes = (id) => results[id] === true && (tests.get(id)?.depends_on ?? []).every(passes)
const kind = (test) => test.kind ?? 'required'

const verdicts = [...tests.values()]
  .filter((test) => !test.browser_only && test.id in results)
  .map((test) => ({
    id: test.id,
    kind: kind(test),
    passed: passes(test.id),
    why: results[test.id] === true ? 'what it depends on' : String(results[test.id][1])
  }))
console.log(JSON.stringify(verdicts))
