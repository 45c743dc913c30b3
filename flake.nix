{
  description = "LLM inference as a reproducible pipeline: the same bits, from one address, on every machine";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in {
      packages = each (pkgs: rec {
        pipe = pkgs.rustPlatform.buildRustPackage {
          pname = "pipe";
          version = "0.1.0";
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          # The tests that drive pip say by themselves that they did not run.
          meta = {
            description = "LLM inference as a reproducible pipeline";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "pipe";
          };
        };
        default = pipe;
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [ cargo rustc rustfmt clippy rust-analyzer python3Packages.pip ];
        };
      });
    };
}
