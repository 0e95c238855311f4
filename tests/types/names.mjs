/**
 * Print what a module offers: each exported name, and the public members of what has
 * some, as the compiler sees them.
 *
 *     node names.mjs FOLDER  # with a tsconfig.json that names one file
 */

import { API, SymbolFlags } from "typescript/unstable/sync";

const { Class, Function, Interface, Variable } = SymbolFlags;
const VALUES = Variable | Function | Class;
const WITH_MEMBERS = Class | Interface;

const api = new API();
try {
  const config = `${process.argv[2]}/tsconfig.json`;
  const [{ program, checker, rootFiles }] = api
    .updateSnapshot({ openProjects: [config] })
    .getProjects();
  const source = program.getSourceFile(rootFiles[0]);
  // The compiler has what is #name as __#1@#name.
  const membersOf = (symbol) =>
    checker
      .getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))
      .filter(({ name }) => !name.startsWith("__"));
  const names = (symbols) => symbols.map(({ name }) => name).sort();

  const members = {}; // of classes and interfaces, by name; exported or not
  for (const { name } of source.statements) {
    const symbol = name && checker.getSymbolAtLocation(name);
    if (!symbol || !(symbol.flags & WITH_MEMBERS)) continue;
    members[symbol.name] = names(membersOf(symbol));
  }
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(source));
  const values = names(exported.filter(({ flags }) => flags & VALUES));
  console.log(JSON.stringify({ values, members }));
} finally {
  api.close();
}
