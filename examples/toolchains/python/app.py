from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello from Flask"


if __name__ == "__main__":
    print(app.test_client().get("/").text)
