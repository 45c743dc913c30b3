//! A pipeline as a picture: Graphviz or Mermaid text.

use std::fmt::Write;

use petgraph::visit::EdgeRef;

use super::Pipeline;

impl Pipeline {
    /// The graph in Graphviz's language, from producers to consumers.
    pub fn graph_dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut out = format!(
            "digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
            quoted(&self.name)
        );
        for node in self.graph.node_indices() {
            let step = &self.graph[node];
            // `\n` is Graphviz's own line break.
            let label = format!("{}\\n{}\"", quoted(&step.name).trim_end_matches('"'), step.op.name());
            let _ = writeln!(out, "  n{} [label={label}];", node.index());
        }
        for edge in self.graph.edge_references() {
            let (from, to) = (edge.source().index(), edge.target().index());
            let _ = writeln!(out, "  n{from} -> n{to} [label={}];", quoted(&self.link_label(edge.id())));
        }
        out.push_str("}\n");
        out
    }

    /// The graph in Mermaid's language, as Markdown viewers draw it.
    pub fn graph_mermaid(&self) -> String {
        let escaped = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
        let mut out = String::from("flowchart LR\n");
        for node in self.graph.node_indices() {
            let step = &self.graph[node];
            let _ = writeln!(out, "  n{}[\"{}<br/>{}\"]", node.index(), escaped(&step.name), step.op.name());
        }
        for edge in self.graph.edge_references() {
            let (from, to) = (edge.source().index(), edge.target().index());
            let _ = writeln!(out, "  n{from} -- \"{}\" --> n{to}", escaped(&self.link_label(edge.id())));
        }
        out
    }

    fn link_label(&self, edge: petgraph::graph::EdgeIndex) -> String {
        let link = &self.graph[edge];
        match &link.output {
            Some(output) => format!("{} ← {output}", link.port),
            None => link.port.clone(),
        }
    }
}
