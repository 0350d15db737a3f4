import { createRoot } from "react-dom/client";
import { App } from "./app";
import { connect, disconnect } from "./records";
import "uplot/dist/uPlot.min.css";
import "./style.css";

// With a token in the address the first thing is to sign in with it.
if (location.hash.startsWith("#token=")) disconnect();
else connect();
createRoot(document.getElementById("root")!).render(<App />);
