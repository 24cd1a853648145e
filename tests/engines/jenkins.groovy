// A stand-in for Jenkins: the declarative steps that exported files use, run by plain Groovy.
//
//     groovy jenkins.groovy JENKINSFILE BRANCH [CHANGE_TARGET]
//
// A stage runs if its `when` holds; the first command that fails ends the build, after `post`. A
// step that Jenkins does not have is an error, as there.

class Build {
    Map<String, String> env
    boolean isFailed = false
    boolean holds = true
    List<Closure> after = []

    def inside(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
    }

    void pipeline(Closure body) {
        inside(body)
        after.each { inside(it) }
        if (isFailed) System.exit(1)
    }

    def getAny() { 'any' }
    void agent(Object where) { assert where == 'any' }
    void options(Closure body) { inside(body) }
    void disableConcurrentBuilds() {}
    void buildDiscarder(Object rotator) {}
    Object logRotator(Map settings) { settings }
    void triggers(Closure body) { inside(body) }
    void cron(String spec) { println "cron: $spec" }
    void stages(Closure body) { inside(body) }

    void stage(String name, Closure body) {
        if (isFailed) return
        holds = true
        println "stage: $name"
        inside(body)
    }

    void when(Closure body) { inside(body) }
    void branch(String name) { holds = holds && env.BRANCH_NAME == name && !env.CHANGE_TARGET }
    void changeRequest() { holds = holds && env.CHANGE_TARGET != null }
    void steps(Closure body) { if (holds && !isFailed) inside(body) }
    void script(Closure body) { if (!isFailed) inside(body) }
    void post(Closure body) { inside(body) }
    void always(Closure body) { after << body }
    void archiveArtifacts(Map settings) { println "archived: $settings.artifacts" }

    void sh(String command) {
        if (isFailed) return
        def builder = new ProcessBuilder('sh', '-xec', command).redirectErrorStream(true)
        builder.environment().putAll(env.findAll { it.value != null })
        def process = builder.start()
        process.inputStream.eachLine { println it }
        if (process.waitFor() != 0) {
            println "script returned exit code ${process.exitValue()}"
            isFailed = true
        }
    }
}

def build = new Build(env: [BRANCH_NAME: args[1], CHANGE_TARGET: args.length > 2 ? args[2] : null])
def binding = new Binding([env: build.env])
def configuration = new org.codehaus.groovy.control.CompilerConfiguration(scriptBaseClass: DelegatingScript.name)
def script = new GroovyShell(this.class.classLoader, binding, configuration).parse(new File(args[0]))
script.setDelegate(build)
script.run()
