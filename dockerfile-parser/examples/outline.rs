//! Lists what a Dockerfile on standard input consists of, and what is wrong with it.

use std::io::Read as _;
use std::process::ExitCode;

use berth_dockerfile_parser::Severity;
use berth_dockerfile_parser::instruction::Kind;

fn main() -> std::io::Result<ExitCode> {
    let mut source = String::new();
    std::io::stdin().read_to_string(&mut source)?;
    let program = berth_dockerfile_parser::read(&source);
    for (index, stage) in program.stages.iter().enumerate() {
        let name = stage.name.clone().unwrap_or_else(|| index.to_string());
        println!("stage {name}, on {} (line {})", stage.base.text, stage.lines.start);
        for instruction in &stage.instructions {
            let lines = instruction.lines;
            match &instruction.kind {
                Kind::Copy(copy) => {
                    let from = copy.from.as_ref().map_or("the context", |from| from.text.as_str());
                    let sources: Vec<&str> =
                        copy.files.sources.iter().map(|word| word.text.as_str()).collect();
                    println!(
                        "  line {}: {} from {from} to {}",
                        lines.start,
                        sources.join(", "),
                        copy.files.dest.text
                    );
                }
                Kind::Run(run) => println!("  line {}: runs {}", lines.start, run.command.words.join(" ")),
                _ => {}
            }
        }
    }
    for fault in &program.diagnostics {
        println!("{}", fault.render("-", &source));
    }
    let failed = program.diagnostics.iter().any(|fault| fault.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
