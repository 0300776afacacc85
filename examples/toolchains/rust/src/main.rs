fn main() {
    println!("{}", serde_json::json!({ "hello": "from Rust" }));
}
