//! Chat templates as models bring them: the conventions they rely on, and the ways they fail.

use pipe::model::{ChatError, ChatTemplate};
use serde_json::{Value, json};

fn render(source: &str, messages: &[Value]) -> Result<String, ChatError> {
    let text = |t: &str| Some(t.to_owned());
    let template =
        ChatTemplate { source: source.into(), bos: text("<s>"), eos: text("</s>"), unk: None, pad: None };
    template.render(messages)
}

fn user(content: &str) -> Value {
    json!({"role": "user", "content": content})
}

#[test]
fn conventions() {
    let cases = [
        // Blocks take their line with them.
        ("{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n", "hi\n"),
        ("{{ bos_token }}{{ messages[0]['role'] }}{{ eos_token }}", "<s>user</s>"),
        ("{% if add_generation_prompt %}yes{% endif %}", "yes"),
        // Python's methods, namespaces, slices, loop controls.
        ("{{ '  x '.strip() + 'a-b'.split('-')[1] }}", "xb"),
        (
            "{% set n = namespace(v=0) %}{% for m in messages %}{% set n.v = n.v + 1 %}{% endfor %}{{ n.v }}",
            "1",
        ),
        ("{% for i in [1, 2, 3, 4][1:] %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "23"),
        ("{{ messages[0].content is string and tools is none and not nothing }}", "True"),
        // Python's JSON, not HTML's.
        (
            r#"{{ {"a": "<é'\"\n>", "b": [1, true, none]} | tojson }}"#,
            r#"{"a": "<é'\"\n>", "b": [1, true, null]}"#,
        ),
        ("{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"),
        // A training mark prints nothing.
        ("{%- generation -%} a {%- endgeneration %}", "a"),
        // A template that asks whether there is a date takes its own.
        ("{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}26 Jul{% endif %}", "26 Jul"),
        ("{{ '<b>' }}", "<b>"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &[user("hi")]).unwrap(), expected, "{source}");
    }
}

#[test]
fn failures_name_the_line() {
    let cases = [
        (
            "a\n{{ raise_exception('roles must alternate') }}",
            "the chat template refuses these messages, line 2: roles must alternate",
        ),
        (
            "\n\n{{ strftime_now('%Y') }}",
            "the chat template asks for today's date (strftime_now, line 3), so its prompt would change from day to day; give the prompt as `text`",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &[user("hi")]).unwrap_err().to_string(), expected);
    }
    let syntax = render("ok\n{% if %}", &[user("hi")]).unwrap_err();
    assert!(matches!(syntax, ChatError::Syntax { line: 2, .. }), "{syntax}");
    let failed = render("ok\n{{ messages[0].content.no_such_method() }}", &[user("hi")]).unwrap_err();
    assert!(matches!(failed, ChatError::Render { line: 2, .. }), "{failed}");
}
