// What JSX turns into; the build adds it to every file.
export { Fragment, h } from "preact";
