import { createRoot } from "react-dom/client";
import { App } from "./app";
import { connect, disconnect } from "./records";
import "uplot/dist/uPlot.min.css";
import "./style.css";

// With a link's code in the address the first thing is to sign in with it.
if (location.hash.startsWith("#code=")) disconnect();
else connect();
// A link that is opened where the console is open already.
window.addEventListener("hashchange", () => location.hash.startsWith("#code=") && location.reload());
createRoot(document.getElementById("root")!).render(<App />);
